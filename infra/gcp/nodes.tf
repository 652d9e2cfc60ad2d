# One instance template and one regional managed instance group for each node group. After it was
# made, only the cluster's operator adds and removes machines: what Google would do by itself is off.

locals {
  names = { for name, g in var.node_groups : name => "${var.uid}-${replace(name, "_", "-")}" }
  # variant -> what kind of confidential machine, and on which processors
  confidential = {
    "gcp-tdx"     = { type = "TDX", platform = null }
    "gcp-sev-snp" = { type = "SEV_SNP", platform = "AMD Milan" }
    "gcp-sev-es"  = { type = "SEV", platform = null }
  }
}

resource "google_compute_instance_template" "this" {
  for_each         = var.node_groups
  name_prefix      = "${local.names[each.key]}-"
  description      = "Nodes of group ${each.key} of ${var.uid}"
  machine_type     = each.value.instance_type
  min_cpu_platform = local.confidential[var.variant].platform
  tags             = [local.roles[each.value.role]]
  can_ip_forward   = false
  labels = merge(local.labels, {
    "constellation-role"       = each.value.role
    "constellation-node-group" = each.key
  })

  # a machine reads its own metadata, but no labels: both say the same
  metadata = {
    "user-data"                = base64decode(var.node_document)
    "constellation-uid"        = var.uid
    "constellation-role"       = each.value.role
    "constellation-node-group" = each.key
    "block-project-ssh-keys"   = "true"
    "serial-port-enable"       = "false"
  }

  confidential_instance_config {
    confidential_instance_type = local.confidential[var.variant].type
  }

  # the vTPM is what nodes attest with; its boot is judged by whoever appraises, not by Google
  shielded_instance_config {
    enable_secure_boot          = false
    enable_vtpm                 = true
    enable_integrity_monitoring = false
  }

  # confidential machines cannot be moved while they run
  scheduling {
    on_host_maintenance = "TERMINATE"
    automatic_restart   = true
  }

  disk {
    boot         = true
    source_image = var.image
    disk_type    = each.value.state_disk_type
    auto_delete  = true
  }

  # the state disk: encrypted by Google as well, though the node's own encryption is what counts
  disk {
    device_name  = "state-disk"
    disk_size_gb = each.value.state_disk_gb
    disk_type    = each.value.state_disk_type
    auto_delete  = true
  }

  # no access_config: no public address
  network_interface {
    subnetwork = local.subnetwork
    nic_type   = "GVNIC"
  }

  dynamic "service_account" {
    for_each = compact([each.value.role == "control-plane" ? var.service_account_control_planes : var.service_account_workers])
    content {
      email = service_account.value
      # what it may do is said by its role (infra/iam/gcp), not by scopes
      scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_region_instance_group_manager" "this" {
  for_each                         = var.node_groups
  name                             = local.names[each.key]
  description                      = "Node group ${each.key} of ${var.uid}"
  region                           = var.region
  base_instance_name               = local.names[each.key]
  target_size                      = each.value.size
  distribution_policy_zones        = each.value.zones
  distribution_policy_target_shape = "EVEN"
  wait_for_instances               = true

  version {
    instance_template = google_compute_instance_template.this[each.key].id
  }

  # a changed template is for machines that are made later; nothing is replaced behind the operator
  update_policy {
    type                         = "OPPORTUNISTIC"
    minimal_action               = "REPLACE"
    instance_redistribution_type = "NONE"
    max_surge_fixed              = length(each.value.zones)
    max_unavailable_fixed        = length(each.value.zones)
  }

  lifecycle {
    # a smaller number would remove machines that nobody has drained: the operator does it
    ignore_changes = [target_size]
  }

  depends_on = [google_compute_router_nat.this]
}
