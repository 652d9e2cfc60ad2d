output "uid" {
  value       = var.uid
  description = "Name of all resources."
}

output "endpoint" {
  value       = "${local.outside_name}:${local.ports.api}"
  description = "host:port of the API server as users reach it."
}

output "in_cluster_endpoint" {
  value       = "${google_compute_address.inside.address}:${local.ports.api}"
  description = "host:port of the API server as nodes reach it."
}

output "api_sans" {
  value       = distinct(compact(concat([var.custom_endpoint, local.address, google_compute_address.inside.address], var.extra_names)))
  description = "Names for the API server's certificate."
}

output "node_cidr" {
  value       = var.node_cidr
  description = "Addresses of the nodes."
}

output "groups" {
  value       = { for name, g in google_compute_region_instance_group_manager.this : name => g.name }
  description = "Name of the managed instance group of each node group."
}

output "load_balancer" {
  value       = var.internal_load_balancer ? google_compute_address.inside.id : google_compute_address.outside[0].id
  description = "Address resource of the load balancer that users reach."
}

output "details" {
  value       = { project = var.project, region = var.region, network = local.network, host = local.address }
  description = "Project, region, network, and the load balancer's own address, for `constellation`."
}

locals {
  address      = var.internal_load_balancer ? google_compute_address.inside.address : google_compute_address.outside[0].address
  outside_name = var.custom_endpoint != "" ? var.custom_endpoint : local.address
}
