# Common subset of Terraform and OpenTofu, from 1.6 on.
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
  subscription_id = var.subscription
  # what a subscription has registered is its owner's affair
  resource_provider_registrations = "none"
  features {}
}
