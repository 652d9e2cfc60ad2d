# What AWS' own cloud controller manager may do, which runs on control planes if the configuration
# wants it. Each permission stands beside the call that needs it; a test compares them with
# src/constellation/providers/aws/controller_calls.py. It knows its cluster by the tag
# KubernetesCluster, and puts it on everything that it makes.

data "aws_partition" "this" {}

locals {
  balancers = [for kind in ["loadbalancer", "targetgroup", "listener"] :
    "arn:${data.aws_partition.this.partition}:elasticloadbalancing:${var.region}:*:${kind}/*"
  ]
  security_groups = "arn:${data.aws_partition.this.partition}:ec2:${var.region}:*:security-group/*"
  uids            = ["${var.name}-??????"]
}

data "aws_iam_policy_document" "cloud_integration" {
  statement {
    sid    = "Look"
    effect = "Allow"
    actions = [
      # does a node's machine still exist; who it is itself
      "ec2:DescribeInstances",
      # where a load balancer may stand
      "ec2:DescribeSubnets",
      # which of these subnets are public
      "ec2:DescribeRouteTables",
      # which of these zones are whole ones
      "ec2:DescribeAvailabilityZones",
      # what lets a load balancer in, before a change
      "ec2:DescribeSecurityGroups",
      # is a Service's load balancer there
      "elasticloadbalancing:DescribeLoadBalancers",
      # its settings, before a change
      "elasticloadbalancing:DescribeLoadBalancerAttributes",
      # its ports, before a change
      "elasticloadbalancing:DescribeListeners",
      # its target groups and their machines, before a change
      "elasticloadbalancing:DescribeTargetGroups",
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
    sid    = "Make"
    effect = "Allow"
    actions = [
      # one for each classic load balancer
      "ec2:CreateSecurityGroup",
      # one for each Service of type LoadBalancer
      "elasticloadbalancing:CreateLoadBalancer",
      # one for each port of a network load balancer
      "elasticloadbalancing:CreateTargetGroup",
    ]
    resources = concat(local.balancers, [local.security_groups])
    condition {
      test     = "StringLike"
      variable = "aws:RequestTag/KubernetesCluster"
      values   = local.uids
    }
  }
  statement {
    sid    = "MakeInNetwork"
    effect = "Allow"
    actions = [
      # asked of the network as well, which has no tag in the request
      "ec2:CreateSecurityGroup",
    ]
    resources = ["arn:${data.aws_partition.this.partition}:ec2:${var.region}:*:vpc/*"]
  }
  statement {
    sid    = "TagSecurityGroups"
    effect = "Allow"
    actions = [
      # the cluster's tag, while the group is made
      "ec2:CreateTags",
    ]
    resources = [local.security_groups]
    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["CreateSecurityGroup"]
    }
  }
  statement {
    sid    = "TagLoadBalancers"
    effect = "Allow"
    actions = [
      # the cluster's tag, while the thing is made
      "elasticloadbalancing:AddTags",
    ]
    resources = local.balancers
    condition {
      test     = "StringEquals"
      variable = "elasticloadbalancing:CreateAction"
      values   = ["CreateLoadBalancer", "CreateListener", "CreateTargetGroup"]
    }
  }
  statement {
    sid    = "Change"
    effect = "Allow"
    actions = [
      # let a load balancer reach nodes, and users reach it; close that again
      "ec2:AuthorizeSecurityGroupIngress",
      "ec2:RevokeSecurityGroupIngress",
      # classic: a new node, one that goes, and which of them take connections
      "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
      "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
      "elasticloadbalancing:ConfigureHealthCheck",
      # classic: a new port of a Service, one that goes
      "elasticloadbalancing:CreateLoadBalancerListeners",
      "elasticloadbalancing:DeleteLoadBalancerListeners",
      # settings, where they differ
      "elasticloadbalancing:ModifyLoadBalancerAttributes",
      # classic: a zone was added or left, other security groups
      "elasticloadbalancing:AttachLoadBalancerToSubnets",
      "elasticloadbalancing:DetachLoadBalancerFromSubnets",
      "elasticloadbalancing:ApplySecurityGroupsToLoadBalancer",
      # network: a new port of a Service, another target group for it, one that goes
      "elasticloadbalancing:CreateListener",
      "elasticloadbalancing:ModifyListener",
      "elasticloadbalancing:DeleteListener",
      # network: another health check
      "elasticloadbalancing:ModifyTargetGroup",
      # network: a new node, one that goes
      "elasticloadbalancing:RegisterTargets",
      "elasticloadbalancing:DeregisterTargets",
    ]
    resources = concat(local.balancers, [local.security_groups])
    condition {
      test     = "StringLike"
      variable = "aws:ResourceTag/KubernetesCluster"
      values   = local.uids
    }
  }
  statement {
    sid    = "Remove"
    effect = "Allow"
    actions = [
      # its Service is gone
      "elasticloadbalancing:DeleteLoadBalancer",
      # its port or Service is gone
      "elasticloadbalancing:DeleteTargetGroup",
      # its load balancer is gone
      "ec2:DeleteSecurityGroup",
    ]
    resources = concat(local.balancers, [local.security_groups])
    condition {
      test     = "StringLike"
      variable = "aws:ResourceTag/KubernetesCluster"
      values   = local.uids
    }
    # what Terraform made of this cluster has that tag, and stays
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/constellation-uid"
      values   = ["true"]
    }
  }
}

resource "aws_iam_role_policy" "cloud_integration" {
  count  = var.cloud_integration ? 1 : 0
  name   = "cloud-integration"
  role   = aws_iam_role.control_planes.id
  policy = data.aws_iam_policy_document.cloud_integration.json
}
