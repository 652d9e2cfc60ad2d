# A network of its own, unless one is named. Nodes have no floating addresses; the router is their
# way out.

resource "openstack_networking_network_v2" "nodes" {
  count          = local.make_network ? 1 : 0
  name           = var.uid
  description    = "Nodes of ${var.uid}"
  admin_state_up = true
  tags           = local.tags
}

resource "openstack_networking_subnet_v2" "nodes" {
  count      = local.make_network ? 1 : 0
  name       = "${var.uid}-nodes"
  network_id = openstack_networking_network_v2.nodes[0].id
  cidr       = var.node_cidr
  ip_version = 4
  tags       = local.tags
}

resource "openstack_networking_router_v2" "this" {
  count               = local.make_network && var.external_network != "" ? 1 : 0
  name                = var.uid
  external_network_id = var.external_network
  tags                = local.tags
}

resource "openstack_networking_router_interface_v2" "this" {
  count     = length(openstack_networking_router_v2.this)
  router_id = openstack_networking_router_v2.this[0].id
  subnet_id = openstack_networking_subnet_v2.nodes[0].id
}
