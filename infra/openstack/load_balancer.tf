# One load balancer (Octavia) before the control planes: TLS and attestation end at the nodes. Its
# address is of the nodes' network; a floating one is added unless it is to be reached from inside
# only. Members are put in by `constellation` and the operator.

resource "openstack_lb_loadbalancer_v2" "this" {
  name          = var.uid
  description   = "Control planes of ${var.uid}"
  vip_subnet_id = local.subnet_id
  tags          = local.tags
}

resource "openstack_lb_listener_v2" "this" {
  for_each        = local.listeners
  name            = "${var.uid}-${each.key}"
  loadbalancer_id = openstack_lb_loadbalancer_v2.this.id
  protocol        = "TCP"
  protocol_port   = each.value
  allowed_cidrs   = local.allowed[each.key]
  tags            = local.tags
}

resource "openstack_lb_pool_v2" "this" {
  for_each    = local.listeners
  name        = "${var.uid}-${each.key}"
  listener_id = openstack_lb_listener_v2.this[each.key].id
  protocol    = "TCP"
  lb_method   = "ROUND_ROBIN"
  tags        = local.tags
}

resource "openstack_lb_monitor_v2" "this" {
  for_each    = local.listeners
  name        = "${var.uid}-${each.key}"
  pool_id     = openstack_lb_pool_v2.this[each.key].id
  type        = "TCP"
  delay       = 10
  timeout     = 5
  max_retries = 2
}

data "openstack_networking_network_v2" "external" {
  count      = var.internal_load_balancer ? 0 : 1
  network_id = var.external_network
}

resource "openstack_networking_floatingip_v2" "this" {
  count       = var.internal_load_balancer ? 0 : 1
  description = "API server of ${var.uid}"
  pool        = data.openstack_networking_network_v2.external[0].name
  tags        = local.tags
}

resource "openstack_networking_floatingip_associate_v2" "this" {
  count       = var.internal_load_balancer ? 0 : 1
  floating_ip = openstack_networking_floatingip_v2.this[0].address
  port_id     = openstack_lb_loadbalancer_v2.this.vip_port_id
  depends_on  = [openstack_networking_router_interface_v2.this]
}
