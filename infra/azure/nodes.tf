# One scale set (uniform orchestration) for each node group. After it was made, only the cluster's
# operator adds and removes machines, and a changed model is for machines that are made later.

locals {
  names        = { for name, g in var.node_groups : name => "${var.uid}-${replace(name, "_", "-")}" }
  confidential = contains(["azure-sev-snp", "azure-tdx"], var.variant)

  # Azure wants a key for an administrator. Nobody has this one's private half: the 32 bytes are
  # SHA-256("constellation: nobody has this key N") for the first N that gives a point of the curve.
  # A node image has neither that user nor an SSH server.
  nobodys_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM+h3YfbPvL+GnJKldLJYoJfZPtiJQ2p4euZkQ+4X2Tn"
}

resource "azurerm_linux_virtual_machine_scale_set" "this" {
  for_each               = var.node_groups
  name                   = local.names[each.key]
  # Azure's own components know machines of all scale sets by this name and their number
  computer_name_prefix   = local.names[each.key]
  resource_group_name    = var.resource_group
  location               = var.region
  sku                    = each.value.instance_type
  instances              = each.value.size
  zones                  = each.value.zones
  zone_balance           = length(each.value.zones) > 1
  # Generalized: this resource always sends a profile of the system (user, key), which Azure refuses
  # for a specialized image. A node tells Azure itself that it was set up (ADR 139).
  source_image_id        = var.image
  user_data              = var.node_document
  upgrade_mode           = "Manual"
  overprovision          = false
  single_placement_group = false
  provision_vm_agent     = false
  # what an extension would run in a machine is not measured
  extension_operations_enabled    = false
  admin_username                  = "nobody-logs-in"
  disable_password_authentication = true

  # the vTPM is what nodes attest with
  vtpm_enabled        = true
  secure_boot_enabled = var.secure_boot

  admin_ssh_key {
    username   = "nobody-logs-in"
    public_key = local.nobodys_key
  }

  os_disk {
    caching              = "ReadOnly"
    storage_account_type = each.value.state_disk_type
    # the state of a confidential machine's vTPM is encrypted by the machine; the image is public
    security_encryption_type = local.confidential ? "VMGuestStateOnly" : null
  }

  # the state disk (LUN 0): encrypted by Azure as well, though the node's own encryption counts
  data_disk {
    lun                  = 0
    create_option        = "Empty"
    caching              = "None"
    disk_size_gb         = each.value.state_disk_gb
    storage_account_type = each.value.state_disk_type
  }

  network_interface {
    name                           = "node"
    primary                        = true
    # Azure refuses it for confidential machines ("DCasv5 and DCadsv5-series", "ECasv5 …": unsupported)
    accelerated_networking_enabled = !local.confidential
    network_security_group_id      = azurerm_network_security_group.nodes.id
    ip_configuration {
      name                           = "node"
      primary                        = true
      subnet_id                      = local.subnet_id
      application_security_group_ids = [azurerm_application_security_group.role[each.value.role].id]
      load_balancer_backend_address_pool_ids = each.value.role == "control-plane" ? concat(
        [azurerm_lb_backend_address_pool.inside.id],
        [for pool in azurerm_lb_backend_address_pool.outside : pool.id],
      ) : []
    }
  }

  # the console of a machine that does not come up, in storage of Azure's own
  boot_diagnostics {}

  dynamic "identity" {
    for_each = compact([each.value.role == "control-plane" ? var.identity_control_planes : var.identity_workers])
    content {
      type         = "UserAssigned"
      identity_ids = [identity.value]
    }
  }

  tags = merge(local.tags, {
    "constellation-role"       = each.value.role
    "constellation-node-group" = each.key
    "constellation-network"    = local.network
  })

  lifecycle {
    # a smaller number would remove machines that nobody has drained: the operator does it
    ignore_changes = [instances]
  }

  depends_on = [
    azurerm_lb_rule.inside,
    azurerm_lb_rule.outside,
    azurerm_subnet_nat_gateway_association.this,
    azurerm_nat_gateway_public_ip_association.this,
  ]
}
