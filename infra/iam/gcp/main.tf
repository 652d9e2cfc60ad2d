# Two service accounts, for control planes and for workers, each with a role of its own that allows
# the calls of permissions.tf.json and nothing else. Keys are made for neither: a machine gets its
# token from its metadata server.

terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 8.0, < 9.0"
    }
  }
}

provider "google" {
  project = var.project
}

variable "project" {
  type        = string
  description = "Project id."
}

variable "prefix" {
  type        = string
  description = "Begins the names of accounts and roles: lower-case letters, digits and dashes, at most 20."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.prefix))
    error_message = "The prefix has 2 to 20 lower-case letters, digits and dashes."
  }
}

resource "google_service_account" "this" {
  for_each     = local.calls
  account_id   = "${var.prefix}-${each.key == "control_planes" ? "cp" : "worker"}"
  display_name = "Constellation ${var.prefix}: ${replace(each.key, "_", " ")}"
}

resource "google_project_iam_custom_role" "this" {
  for_each    = local.calls
  role_id     = "${replace(var.prefix, "-", "_")}_${each.key}"
  title       = "Constellation ${var.prefix}: ${replace(each.key, "_", " ")}"
  description = "What the programs on these nodes call, and nothing else"
  permissions = distinct([for call in each.value : call.permission])
}

resource "google_project_iam_member" "this" {
  for_each = local.calls
  project  = var.project
  role     = google_project_iam_custom_role.this[each.key].name
  member   = "serviceAccount:${google_service_account.this[each.key].email}"
}

output "service_account_control_planes" {
  value       = google_service_account.this["control_planes"].email
  description = "For provider.gcp.serviceAccountControlPlanes."
}

output "service_account_workers" {
  value       = google_service_account.this["workers"].email
  description = "For provider.gcp.serviceAccountWorkers."
}
