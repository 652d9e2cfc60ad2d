output "uid" {
  value       = var.uid
  description = "Name of all resources."
}

output "endpoint" {
  value       = "${local.outside_name}:${local.ports.api}"
  description = "host:port of the API server as users reach it."
}

output "in_cluster_endpoint" {
  value       = "${openstack_lb_loadbalancer_v2.this.vip_address}:${local.ports.api}"
  description = "host:port of the API server as nodes reach it."
}

output "api_sans" {
  value       = distinct(compact(concat([var.custom_endpoint, local.address, openstack_lb_loadbalancer_v2.this.vip_address], var.extra_names)))
  description = "Names for the API server's certificate."
}

output "node_cidr" {
  value       = var.node_cidr
  description = "Addresses of the nodes."
}

output "groups" {
  value       = { for name, g in var.node_groups : name => "${var.uid}-${replace(name, "_", "-")}" }
  description = "Beginning of the names of each node group's servers."
}

output "load_balancer" {
  value       = openstack_lb_loadbalancer_v2.this.id
  description = "Id of the load balancer."
}

output "details" {
  value = {
    region                       = var.region
    host                         = local.address
    network                      = local.network_id
    subnet                       = local.subnet_id
    image                        = var.image
    security_group_control_plane = openstack_networking_secgroup_v2.role["control-plane"].id
    security_group_worker        = openstack_networking_secgroup_v2.role["worker"].id
    pools                        = jsonencode({ for name, pool in openstack_lb_pool_v2.this : name => { pool_id = pool.id, port = local.ports[name] } })
  }
  description = "Where servers are put and which pools lead to them, for `constellation`."
}

locals {
  address      = var.internal_load_balancer ? openstack_lb_loadbalancer_v2.this.vip_address : openstack_networking_floatingip_v2.this[0].address
  outside_name = var.custom_endpoint != "" ? var.custom_endpoint : local.address
}
