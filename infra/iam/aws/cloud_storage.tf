# What AWS' own CSI driver may do, whose controller runs on control planes if the configuration
# wants the cloud's components. Each permission stands beside the call that needs it; a test
# compares them with src/constellation/providers/aws/storage_calls.py. The driver's tag is the same
# in every cluster: volumes of another cluster's driver in this account and region have it too.

locals {
  volumes   = "arn:${data.aws_partition.this.partition}:ec2:${var.region}:*:volume/*"
  instances = "arn:${data.aws_partition.this.partition}:ec2:${var.region}:*:instance/*"
}

data "aws_iam_policy_document" "cloud_storage" {
  statement {
    sid    = "Look"
    effect = "Allow"
    actions = [
      # does AWS answer at all
      "ec2:DescribeAvailabilityZones",
      # which device names a machine has free
      "ec2:DescribeInstances",
      # how many volumes a machine takes
      "ec2:DescribeInstanceTypes",
      # is a volume made, attached, detached, as large as asked
      "ec2:DescribeVolumes",
      # is a volume's growth done
      "ec2:DescribeVolumesModifications",
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
      # one for each claim
      "ec2:CreateVolume",
    ]
    resources = [local.volumes]
    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/ebs.csi.aws.com/cluster"
      values   = ["true"]
    }
    # the key is AWS' own, but a disk that leaves its data centre is not readable
    condition {
      test     = "Bool"
      variable = "ec2:Encrypted"
      values   = ["true"]
    }
  }
  statement {
    sid    = "Tag"
    effect = "Allow"
    actions = [
      # the driver's tag, while the volume is made
      "ec2:CreateTags",
    ]
    resources = [local.volumes]
    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["CreateVolume"]
    }
  }
  statement {
    sid    = "JoinVolume"
    effect = "Allow"
    actions = [
      # a pod with the claim is placed on a node
      "ec2:AttachVolume",
      # the last pod with the claim has left a node
      "ec2:DetachVolume",
    ]
    resources = [local.volumes]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/ebs.csi.aws.com/cluster"
      values   = ["true"]
    }
    # what Terraform made (a state disk) has that tag, and stays where it is
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/constellation-uid"
      values   = ["true"]
    }
  }
  statement {
    sid    = "JoinMachine"
    effect = "Allow"
    actions = [
      # asked of the machine as well
      "ec2:AttachVolume",
      "ec2:DetachVolume",
    ]
    resources = [local.instances]
    condition {
      test     = "StringLike"
      variable = "aws:ResourceTag/constellation-uid"
      values   = local.uids
    }
  }
  statement {
    sid    = "Change"
    effect = "Allow"
    actions = [
      # a claim asks for more
      "ec2:ModifyVolume",
      # its claim is gone
      "ec2:DeleteVolume",
    ]
    resources = [local.volumes]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/ebs.csi.aws.com/cluster"
      values   = ["true"]
    }
    # what Terraform made of a cluster has that tag, and stays
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/constellation-uid"
      values   = ["true"]
    }
  }
}

resource "aws_iam_role_policy" "cloud_storage" {
  count  = var.cloud_integration ? 1 : 0
  name   = "cloud-storage"
  role   = aws_iam_role.control_planes.id
  policy = data.aws_iam_policy_document.cloud_storage.json
}
