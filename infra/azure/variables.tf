# The seam between `constellation` and this module: it writes constellation.auto.tfvars.json.

variable "uid" {
  type        = string
  description = "Name of all resources: the cluster's name, a dash, six hexadecimal digits."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,12}-[0-9a-f]{6}$", var.uid))
    error_message = "The uid is the cluster's name (13 characters at most), a dash, six hexadecimal digits."
  }
}

variable "region" {
  type        = string
  description = "Region, e.g. germanywestcentral."
}

variable "node_groups" {
  type = map(object({
    role            = string
    size            = number
    zones           = list(string)
    instance_type   = string
    state_disk_gb   = number
    state_disk_type = string
  }))
  description = "Node groups by name: role (control-plane, worker), number of machines, availability zones, machine type, size in GiB and type of the state disk. An empty list of zones: the region has none."
  validation {
    condition     = alltrue([for g in values(var.node_groups) : contains(["control-plane", "worker"], g.role) && g.size >= 0])
    error_message = "A group has the role control-plane or worker, and a size of 0 or more."
  }
}

variable "image" {
  type        = string
  description = "The node image: resource id of an image version."
}

variable "node_document" {
  type        = string
  description = "The node document, base64: user data of every machine as it is. It is measured by the nodes and holds no secret."
}

variable "variant" {
  type        = string
  description = "How nodes attest: azure-sev-snp and azure-tdx make confidential machines, azure-trustedlaunch ordinary ones."
  validation {
    condition     = contains(["azure-sev-snp", "azure-tdx", "azure-trustedlaunch"], var.variant)
    error_message = "Azure has azure-sev-snp, azure-tdx and azure-trustedlaunch."
  }
}

variable "node_cidr" {
  type        = string
  description = "Addresses of the nodes; the network that is made has these."
}

variable "existing_network" {
  type = object({
    subnet_id = string
  })
  description = "Resource id of an existing subnet for the nodes and the internal load balancer; null: a network is made."
  default     = null
}

variable "internal_load_balancer" {
  type        = bool
  description = "True: the cluster is reached from inside the network only."
  default     = false
}

variable "access" {
  type = object({
    api        = list(string)
    init       = list(string)
    recovery   = list(string)
    verify     = list(string)
    policy     = list(string)
    node_ports = list(string)
  })
  description = "Networks (CIDR) that may reach 6443, 9000, 9999, 30081, 30091 of the load balancer, and NodePorts 30100-32767 of the nodes. An empty list closes a port."
}

variable "initialised" {
  type        = bool
  description = "True: the cluster runs, so that port 9000 of the load balancer is closed."
  default     = false
}

variable "custom_endpoint" {
  type        = string
  description = "Host name under which users reach the API server; its DNS record is yours. Empty: the load balancer's own address."
  default     = ""
}

variable "extra_names" {
  type        = list(string)
  description = "More host names for the API server's certificate."
  default     = []
}

variable "tags" {
  type        = map(string)
  description = "More tags for all resources."
  default     = {}
}

variable "subscription" {
  type        = string
  description = "Id of the subscription."
}

variable "resource_group" {
  type        = string
  description = "Resource group for everything of this cluster; it exists (infra/iam/azure makes it)."
}

variable "identity_control_planes" {
  type        = string
  description = "Resource id of the control planes' user-assigned identity (infra/iam/azure makes it). Empty: none, so that control planes neither find each other nor replace nodes."
  default     = ""
}

variable "identity_workers" {
  type        = string
  description = "Resource id of the workers' user-assigned identity (infra/iam/azure makes it). Empty: none, so that workers do not find the cluster."
  default     = ""
}

variable "secure_boot" {
  type        = bool
  description = "True: the firmware starts only what its own keys have signed. What a node boots is measured either way."
  default     = false
}

variable "cloud_integration" {
  type        = bool
  description = "True: Azure's own components run in the cluster, so that its load balancers may ask workers' NodePorts whether they answer."
  default     = false
}
