# One launch template and one autoscaling group for each node group. Only the cluster's operator and
# a change of the configuration add or remove machines: what AWS would do by itself is suspended.

locals {
  names = { for name, g in var.node_groups : name => "${var.uid}-${replace(name, "_", "-")}" }
}

resource "aws_launch_template" "this" {
  for_each               = var.node_groups
  name                   = local.names[each.key]
  description            = "Nodes of group ${each.key} of ${var.uid}"
  image_id               = var.image
  instance_type          = each.value.instance_type
  user_data              = var.node_document
  update_default_version = true
  vpc_security_group_ids = [local.roles[each.value.role]]

  dynamic "iam_instance_profile" {
    for_each = compact([each.value.role == "control-plane" ? var.instance_profile_control_planes : var.instance_profile_workers])
    content {
      name = iam_instance_profile.value
    }
  }

  dynamic "cpu_options" {
    for_each = var.variant == "aws-sev-snp" ? [1] : []
    content {
      amd_sev_snp = "enabled"
    }
  }

  # version 2 with its token only; one hop: what a node forwards for pods does not get there
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "enabled"
  }

  # the state disk: encrypted by AWS as well, though the node's own encryption is what counts
  block_device_mappings {
    device_name = "/dev/sdb"
    ebs {
      volume_size           = each.value.state_disk_gb
      volume_type           = each.value.state_disk_type
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]
    content {
      resource_type = tag_specifications.value
      tags = merge(local.tags, local.integration, {
        "Name"                     = local.names[each.key]
        "constellation-role"       = each.value.role
        "constellation-node-group" = each.key
      })
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_autoscaling_group" "this" {
  for_each            = var.node_groups
  name                = local.names[each.key]
  min_size            = 0
  max_size            = 2 * each.value.size + 2
  desired_capacity    = each.value.size
  vpc_zone_identifier = [for z in each.value.zones : local.node_subnets[z]]
  health_check_type   = "EC2"
  force_delete        = true
  # a smaller size takes no machine away: the operator drains and deletes one by one
  protect_from_scale_in     = true
  suspended_processes       = ["AZRebalance", "ReplaceUnhealthy"]
  wait_for_capacity_timeout = "10m"
  # port 9000 leads to the one control plane that init goes to: `constellation` registers it
  target_group_arns = each.value.role == "control-plane" ? concat(
    [for name, g in aws_lb_target_group.inside : g.arn if name != "init"],
    [for name, g in aws_lb_target_group.outside : g.arn if name != "init"],
  ) : []

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  dynamic "tag" {
    for_each = merge(local.tags, {
      "Name"                     = local.names[each.key]
      "constellation-role"       = each.value.role
      "constellation-node-group" = each.key
    })
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }
  depends_on = [aws_route_table_association.nodes]
}
