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
  description = "Region; empty: the one of clouds.yaml."
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
  description = "Node groups by name: role (control-plane, worker), number of machines, availability zones, machine type, size in GiB and type of the state disk. The machines themselves are made by `constellation` and the operator, which keep groups here."
  validation {
    condition     = alltrue([for g in values(var.node_groups) : contains(["control-plane", "worker"], g.role) && g.size >= 0])
    error_message = "A group has the role control-plane or worker, and a size of 0 or more."
  }
}

variable "image" {
  type        = string
  description = "Id of the node image."
}

variable "node_document" {
  type        = string
  description = "The node document, base64: user data of every machine as it is. It is measured by the nodes and holds no secret."
}

variable "variant" {
  type        = string
  description = "How nodes attest: qemu-vtpm, for development."
  validation {
    condition     = contains(["qemu-vtpm"], var.variant)
    error_message = "OpenStack has qemu-vtpm."
  }
}

variable "node_cidr" {
  type        = string
  description = "Addresses of the nodes; the network that is made has these."
}

variable "existing_network" {
  type = object({
    network_id = string
    subnet_id  = string
  })
  description = "Ids of an existing network and its subnet for nodes and load balancer; null: a network is made."
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
  description = "More tags for networks and load balancer, as KEY=VALUE."
  default     = {}
}

variable "cloud" {
  type        = string
  description = "Name of the cloud in clouds.yaml, which has the credentials."
}

variable "external_network" {
  type        = string
  description = "Id of the external network for floating addresses and the router; empty: none is needed."
  default     = ""
}

variable "cloud_integration" {
  type        = bool
  description = "True: load balancers that OpenStack's own controller manager makes for Services reach NodePorts from the nodes' network."
  default     = false
}
