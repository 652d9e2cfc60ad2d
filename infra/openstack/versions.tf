# Common subset of Terraform and OpenTofu, from 1.6 on.
terraform {
  required_version = ">= 1.6"
  required_providers {
    openstack = {
      source  = "terraform-provider-openstack/openstack"
      version = ">= 3.0, < 4.0"
    }
  }
}

# credentials stand in clouds.yaml, and come neither into variables nor into the state
provider "openstack" {
  cloud  = var.cloud
  region = var.region == "" ? null : var.region
}
