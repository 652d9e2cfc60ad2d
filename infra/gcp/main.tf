# Names and small decisions that the other files share.

locals {
  labels = merge(var.tags, { "constellation-uid" = var.uid })

  make_network = var.existing_network == null
  network      = local.make_network ? google_compute_network.this[0].id : var.existing_network.network
  subnetwork   = local.make_network ? google_compute_subnetwork.nodes[0].id : var.existing_network.subnetwork

  # network tags: firewall rules name roles by them
  roles = { for role in ["control-plane", "worker"] : role => "${var.uid}-${role}" }

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

  control_plane_groups = [for name, g in var.node_groups : name if g.role == "control-plane"]
}
