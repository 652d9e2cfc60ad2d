# The cluster's resource group and two user-assigned identities, for control planes and for workers.
# Each has a role of its own in that group, which allows the calls of permissions.tf.json and nothing
# else. Identities have no password: a machine gets its token from its metadata service.

terraform {
  required_version = ">= 1.6"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 5.0, < 6.0"
    }
  }
}

provider "azurerm" {
  subscription_id                 = var.subscription
  resource_provider_registrations = "none"
  features {}
}

variable "subscription" {
  type        = string
  description = "Id of the subscription."
}

variable "region" {
  type        = string
  description = "Region, e.g. germanywestcentral."
}

variable "resource_group" {
  type        = string
  description = "Name of the resource group that is made: everything of the cluster lies in it."
}

variable "name" {
  type        = string
  description = "Name of the cluster, as in the configuration: begins the names of identities and roles."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,12}$", var.name))
    error_message = "The name has lower-case letters, digits and dashes, 13 at most."
  }
}

resource "azurerm_resource_group" "this" {
  name     = var.resource_group
  location = var.region
}

resource "azurerm_user_assigned_identity" "this" {
  for_each            = local.calls
  name                = "${var.name}-${replace(each.key, "_", "-")}"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.region
}

resource "azurerm_role_definition" "this" {
  for_each    = local.calls
  name        = "${var.name}-${replace(each.key, "_", "-")}"
  scope       = azurerm_resource_group.this.id
  description = "What the programs on these nodes call, and nothing else"
  permissions {
    actions = distinct(flatten([for call in each.value : concat([call.permission], call.linked)]))
  }
}

resource "azurerm_role_assignment" "this" {
  for_each           = local.calls
  scope              = azurerm_resource_group.this.id
  role_definition_id = azurerm_role_definition.this[each.key].role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.this[each.key].principal_id
}

output "configuration" {
  value = {
    identityControlPlanes = azurerm_user_assigned_identity.this["control_planes"].id
    identityWorkers       = azurerm_user_assigned_identity.this["workers"].id
  }
  description = "What belongs into provider.azure of the configuration."
}
