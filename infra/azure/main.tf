# Names and small decisions that the other files share.

locals {
  tags = merge(var.tags, { "constellation-uid" = var.uid })

  make_network = var.existing_network == null
  subnet_id    = local.make_network ? azurerm_subnet.nodes[0].id : var.existing_network.subnet_id

  # GROUP/NETWORK/SUBNET, of an existing subnet by its resource id
  network = local.make_network ? "${var.resource_group}/${var.uid}/${var.uid}-nodes" : try(join("/", regex(
    "(?i)^/subscriptions/[^/]+/resourceGroups/([^/]+)/providers/Microsoft\\.Network/virtualNetworks/([^/]+)/subnets/([^/]+)$",
    var.existing_network.subnet_id
  )), "")

  # ports of control planes that the load balancer leads to, and who may reach them
  ports = {
    api      = 6443
    init     = 9000
    recovery = 9999
    verify   = 30081
    policy   = 30091
  }
  asked_for = { for name, port in local.ports : name => port if length(var.access[name]) > 0 && !(name == "init" && var.initialised) }

  # inside the cluster the API server has an address of its own: no way out and in again
  inside_ports  = var.internal_load_balancer ? merge(local.asked_for, { api = local.ports.api }) : { api = local.ports.api }
  outside_ports = var.internal_load_balancer ? {} : local.asked_for
}
