# What Azure's own components may do, which run on control planes if the configuration wants them:
# the calls of permissions.tf.json, in the cluster's resource group, and one that reads which zones
# regions have, of the subscription.

variable "cloud_integration" {
  type        = bool
  description = "True: Azure's own components run in the cluster (provider.azure.cloudIntegration), with the control planes' identity."
  default     = false
}

locals {
  scopes = var.cloud_integration ? {
    resource_group = azurerm_resource_group.this.id
    subscription   = "/subscriptions/${var.subscription}"
  } : {}
}

resource "azurerm_role_definition" "components" {
  for_each    = local.scopes
  name        = "${var.name}-components-${replace(each.key, "_", "-")}"
  scope       = each.value
  description = "What Azure's own components call, and nothing else"
  permissions {
    actions = distinct(flatten([for call in local.component_calls[each.key] : concat([call.permission], call.linked)]))
  }
}

resource "azurerm_role_assignment" "components" {
  for_each           = local.scopes
  scope              = each.value
  role_definition_id = azurerm_role_definition.components[each.key].role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.this["control_planes"].principal_id
}
