# Who reaches what. The load balancers pass packets through with their senders' addresses, so these
# rules bound them as well. Nothing else comes in: a network's own last rule denies it.

locals {
  # docs/architecture/seams.md, "Ports"
  node_rules = {
    "to-control-planes" = {
      to  = ["control-plane"], from = ["control-plane", "worker"]
      tcp = ["6443", "30090", "9090", "9091", "9092"], udp = []
    }
    "among-control-planes" = {
      to  = ["control-plane"], from = ["control-plane"]
      tcp = ["2379", "2380", "30091"], udp = []
    }
    "to-nodes" = {
      to  = ["control-plane", "worker"], from = ["control-plane", "worker"]
      tcp = ["10250", "30081"], udp = ["51820"]
    }
  }
  # Compute Engine, "Health checks": where the probes of passthrough load balancers come from
  probes = ["35.191.0.0/16", "130.211.0.0/22", "209.85.152.0/22", "209.85.204.0/22"]
}

resource "google_compute_firewall" "nodes" {
  for_each    = local.node_rules
  name        = "${var.uid}-${each.key}"
  description = "Nodes of ${var.uid} reach each other on these ports"
  network     = local.network
  direction   = "INGRESS"
  source_tags = [for role in each.value.from : local.roles[role]]
  target_tags = [for role in each.value.to : local.roles[role]]
  allow {
    protocol = "tcp"
    ports    = each.value.tcp
  }
  dynamic "allow" {
    for_each = length(each.value.udp) > 0 ? [each.value.udp] : []
    content {
      protocol = "udp"
      ports    = allow.value
    }
  }
}

resource "google_compute_firewall" "outside" {
  for_each      = local.asked_for
  name          = "${var.uid}-${each.key}"
  description   = "Who may reach ${each.key} of ${var.uid} through the load balancer"
  network       = local.network
  direction     = "INGRESS"
  source_ranges = var.access[each.key]
  target_tags   = [local.roles["control-plane"]]
  allow {
    protocol = "tcp"
    ports    = [tostring(each.value)]
  }
}

resource "google_compute_firewall" "probes" {
  name          = "${var.uid}-probes"
  description   = "The load balancers of ${var.uid} see which control planes answer"
  network       = local.network
  direction     = "INGRESS"
  source_ranges = local.probes
  target_tags   = [local.roles["control-plane"]]
  allow {
    protocol = "tcp"
    ports    = sort([for port in values(merge(local.asked_for, local.inside_ports)) : tostring(port)])
  }
}

resource "google_compute_firewall" "node_ports" {
  count         = length(var.access.node_ports) > 0 ? 1 : 0
  name          = "${var.uid}-node-ports"
  description   = "Who may reach NodePorts of ${var.uid}"
  network       = local.network
  direction     = "INGRESS"
  source_ranges = var.access.node_ports
  target_tags   = values(local.roles)
  allow {
    protocol = "tcp"
    ports    = ["30100-32767"]
  }
}
