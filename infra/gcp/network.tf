# A network of its own, unless one is named. Nodes have no public addresses; a NAT is their way out.

resource "google_compute_network" "this" {
  count                   = local.make_network ? 1 : 0
  name                    = var.uid
  description             = "Nodes of ${var.uid}"
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "nodes" {
  count         = local.make_network ? 1 : 0
  name          = "${var.uid}-nodes"
  region        = var.region
  network       = google_compute_network.this[0].id
  ip_cidr_range = var.node_cidr
  # Google's own APIs without the NAT
  private_ip_google_access = true
}

resource "google_compute_router" "this" {
  count   = local.make_network ? 1 : 0
  name    = var.uid
  region  = var.region
  network = google_compute_network.this[0].id
}

resource "google_compute_router_nat" "this" {
  count                              = local.make_network ? 1 : 0
  name                               = var.uid
  region                             = var.region
  router                             = google_compute_router.this[0].name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"
  subnetwork {
    name                    = google_compute_subnetwork.nodes[0].id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }
}
