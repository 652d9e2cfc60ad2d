# The identities of nodes. Each permission stands beside the call that needs it; a test compares them
# with src/constellation/providers/aws/calls.py. What only reads cannot be held to one cluster's
# resources by AWS; it is held to the region.

locals {
  tags = merge(var.tags, { "constellation-cluster" = var.name })
}

data "aws_iam_policy_document" "machines" {
  statement {
    effect  = "Allow"
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "control_planes" {
  statement {
    sid    = "Look"
    effect = "Allow"
    actions = [
      # which machines are this cluster's: for joining nodes, operator, JoinService
      "ec2:DescribeInstances",
      # size and target groups of a node group, before a machine is added or removed
      "autoscaling:DescribeAutoScalingGroups",
      # is a control plane drained, before it is removed?
      "elasticloadbalancing:DescribeTargetHealth",
    ]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.region]
    }
  }
  statement {
    sid    = "ReplaceNodes"
    effect = "Allow"
    actions = [
      # add one machine to a node group
      "autoscaling:SetDesiredCapacity",
      # remove one machine, and its place in the group
      "autoscaling:TerminateInstanceInAutoScalingGroup",
      # take a control plane out of the load balancer before it is removed
      "elasticloadbalancing:DeregisterTargets",
    ]
    resources = ["*"]
    condition {
      test     = "StringLike"
      variable = "aws:ResourceTag/constellation-uid"
      values   = ["${var.name}-??????"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.region]
    }
  }
}

data "aws_iam_policy_document" "workers" {
  statement {
    sid    = "Look"
    effect = "Allow"
    actions = [
      # which machines are control planes of this cluster, to ask one for a ticket
      "ec2:DescribeInstances",
    ]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [var.region]
    }
  }
}

resource "aws_iam_role" "control_planes" {
  name               = "${var.name}-constellation-control-planes"
  description        = "Control planes of Constellation clusters named ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.machines.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "control_planes" {
  name   = "constellation"
  role   = aws_iam_role.control_planes.id
  policy = data.aws_iam_policy_document.control_planes.json
}

resource "aws_iam_instance_profile" "control_planes" {
  name = "${var.name}-constellation-control-planes"
  role = aws_iam_role.control_planes.name
  tags = local.tags
}

resource "aws_iam_role" "workers" {
  name               = "${var.name}-constellation-workers"
  description        = "Workers of Constellation clusters named ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.machines.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "workers" {
  name   = "constellation"
  role   = aws_iam_role.workers.id
  policy = data.aws_iam_policy_document.workers.json
}

resource "aws_iam_instance_profile" "workers" {
  name = "${var.name}-constellation-workers"
  role = aws_iam_role.workers.name
  tags = local.tags
}
