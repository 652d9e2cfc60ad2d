variable "name" {
  type        = string
  description = "Name of the cluster, as in the configuration: the identities may act on resources of clusters of that name only."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,12}$", var.name))
    error_message = "Lower-case letters, digits and dashes, 13 at most."
  }
}

variable "region" {
  type        = string
  description = "Region, e.g. eu-west-1: the identities may act there only."
}

variable "cloud_integration" {
  type        = bool
  description = "Whether control planes may do what AWS' own components need: make and remove load balancers for Services, and volumes for claims."
  default     = false
}

variable "tags" {
  type        = map(string)
  description = "More tags for roles and instance profiles."
  default     = {}
}
