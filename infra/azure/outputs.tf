output "uid" {
  value       = var.uid
  description = "Name of all resources."
}

output "endpoint" {
  value       = "${local.outside_name}:${local.ports.api}"
  description = "host:port of the API server as users reach it."
}

output "in_cluster_endpoint" {
  value       = "${local.inside_address}:${local.ports.api}"
  description = "host:port of the API server as nodes reach it."
}

output "api_sans" {
  value       = distinct(compact(concat([var.custom_endpoint, local.address, local.inside_address], var.extra_names)))
  description = "Names for the API server's certificate."
}

output "node_cidr" {
  value       = var.node_cidr
  description = "Addresses of the nodes."
}

output "groups" {
  value       = { for name, g in azurerm_linux_virtual_machine_scale_set.this : name => g.name }
  description = "Name of the scale set of each node group."
}

output "load_balancer" {
  value       = var.internal_load_balancer ? azurerm_lb.inside.id : azurerm_lb.outside[0].id
  description = "Resource id of the load balancer that users reach."
}

output "details" {
  value = {
    subscription   = var.subscription
    resource_group = var.resource_group
    region         = var.region
    host           = local.address
  }
  description = "Subscription, resource group, region, and the load balancer's own address, for `constellation`."
}

locals {
  inside_address = azurerm_lb.inside.private_ip_address
  address        = var.internal_load_balancer ? local.inside_address : azurerm_public_ip.outside[0].ip_address
  outside_name   = var.custom_endpoint != "" ? var.custom_endpoint : local.address
}
