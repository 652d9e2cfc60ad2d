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

variable "name" {
  type        = string
  description = "Name of the cluster, as in the configuration: begins the names of accounts and roles."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,12}$", var.name))
    error_message = "The name has lower-case letters, digits and dashes, 13 at most."
  }
}

resource "google_service_account" "this" {
  for_each     = local.calls
  account_id   = "${var.name}-${each.key == "control_planes" ? "control-plane" : "worker"}"
  display_name = "Constellation ${var.name}: ${replace(each.key, "_", " ")}"
}

resource "google_project_iam_custom_role" "this" {
  for_each    = local.calls
  role_id     = "${replace(var.name, "-", "_")}_${each.key}"
  title       = "Constellation ${var.name}: ${replace(each.key, "_", " ")}"
  description = "What the programs on these nodes call, and nothing else"
  permissions = distinct([for call in each.value : call.permission])
}

resource "google_project_iam_member" "this" {
  for_each = local.calls
  project  = var.project
  role     = google_project_iam_custom_role.this[each.key].name
  member   = "serviceAccount:${google_service_account.this[each.key].email}"
}

output "configuration" {
  value = {
    serviceAccountControlPlanes = google_service_account.this["control_planes"].email
    serviceAccountWorkers       = google_service_account.this["workers"].email
  }
  description = "What belongs into provider.gcp of the configuration."
}
