# Names and small decisions that the other files share. OpenStack has no groups of machines: this
# module makes what they stand in, `constellation` and the operator make the machines.

locals {
  tags = concat(["constellation-uid=${var.uid}"], [for key, value in var.tags : "${key}=${value}"])

  make_network = var.existing_network == null
  network_id   = local.make_network ? openstack_networking_network_v2.nodes[0].id : var.existing_network.network_id
  subnet_id    = local.make_network ? openstack_networking_subnet_v2.nodes[0].id : var.existing_network.subnet_id

  # ports of control planes that the load balancer leads to, and who may reach them
  ports = {
    api      = 6443
    init     = 9000
    recovery = 9999
    verify   = 30081
    policy   = 30091
  }
  asked_for = { for name, port in local.ports : name => port if length(var.access[name]) > 0 && !(name == "init" && var.initialised) }
  # nodes reach the API server by the same load balancer, from inside
  listeners = merge(local.asked_for, { api = local.ports.api })
  allowed   = { for name, port in local.listeners : name => name == "api" ? concat(var.access.api, [var.node_cidr]) : var.access[name] }
}
