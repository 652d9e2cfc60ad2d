# Common subset of Terraform and OpenTofu, from 1.6 on. IAM knows no regions; the provider wants one.
terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.60, < 6.0"
    }
  }
}

provider "aws" {
  region = var.region
}
