# Passthrough network load balancers before the control planes: TLS and attestation end at the nodes.
# Each port has its own health check, so that a node gets what it serves, and a draining time, so
# that a machine that is removed keeps its open connections for a while.

resource "google_compute_address" "inside" {
  name         = "${var.uid}-inside"
  region       = var.region
  address_type = "INTERNAL"
  # for several forwarding rules
  purpose    = "SHARED_LOADBALANCER_VIP"
  subnetwork = local.subnetwork
}

resource "google_compute_address" "outside" {
  count        = var.internal_load_balancer ? 0 : 1
  name         = var.uid
  region       = var.region
  address_type = "EXTERNAL"
}

resource "google_compute_region_health_check" "this" {
  for_each            = merge(local.inside_ports, local.outside_ports)
  name                = "${var.uid}-${each.key}"
  region              = var.region
  check_interval_sec  = 10
  timeout_sec         = 5
  healthy_threshold   = 2
  unhealthy_threshold = 2
  tcp_health_check {
    port = each.value
  }
}

resource "google_compute_region_backend_service" "inside" {
  for_each                        = local.inside_ports
  name                            = "${var.uid}-i-${each.key}"
  region                          = var.region
  protocol                        = "TCP"
  load_balancing_scheme           = "INTERNAL"
  health_checks                   = [google_compute_region_health_check.this[each.key].id]
  connection_draining_timeout_sec = 20
  dynamic "backend" {
    for_each = local.control_plane_groups
    content {
      group          = google_compute_region_instance_group_manager.this[backend.value].instance_group
      balancing_mode = "CONNECTION"
    }
  }
}

resource "google_compute_region_backend_service" "outside" {
  for_each                        = local.outside_ports
  name                            = "${var.uid}-o-${each.key}"
  region                          = var.region
  protocol                        = "TCP"
  load_balancing_scheme           = "EXTERNAL"
  health_checks                   = [google_compute_region_health_check.this[each.key].id]
  connection_draining_timeout_sec = 20
  dynamic "backend" {
    for_each = local.control_plane_groups
    content {
      group          = google_compute_region_instance_group_manager.this[backend.value].instance_group
      balancing_mode = "CONNECTION"
    }
  }
}

resource "google_compute_forwarding_rule" "inside" {
  for_each              = local.inside_ports
  name                  = "${var.uid}-i-${each.key}"
  region                = var.region
  load_balancing_scheme = "INTERNAL"
  ip_address            = google_compute_address.inside.id
  ip_protocol           = "TCP"
  ports                 = [tostring(each.value)]
  backend_service       = google_compute_region_backend_service.inside[each.key].id
  network               = local.network
  subnetwork            = local.subnetwork
}

resource "google_compute_forwarding_rule" "outside" {
  for_each              = local.outside_ports
  name                  = "${var.uid}-o-${each.key}"
  region                = var.region
  load_balancing_scheme = "EXTERNAL"
  ip_address            = google_compute_address.outside[0].id
  ip_protocol           = "TCP"
  ports                 = [tostring(each.value)]
  backend_service       = google_compute_region_backend_service.outside[each.key].id
}
