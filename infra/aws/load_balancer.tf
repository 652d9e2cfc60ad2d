# Network load balancers before the control planes: TLS and attestation end at the nodes.

resource "aws_lb" "inside" {
  name                             = "${var.uid}-inside"
  internal                         = true
  load_balancer_type               = "network"
  subnets                          = [for z in local.zones : local.node_subnets[z]]
  security_groups                  = [aws_security_group.inside.id]
  enable_cross_zone_load_balancing = true
  tags                             = local.tags
}

resource "aws_lb" "outside" {
  count                            = var.internal_load_balancer ? 0 : 1
  name                             = var.uid
  internal                         = false
  load_balancer_type               = "network"
  subnets                          = [for z in local.zones : local.public_subnets[z]]
  security_groups                  = [aws_security_group.outside[0].id]
  enable_cross_zone_load_balancing = true
  tags                             = local.tags
  depends_on                       = [aws_internet_gateway.this]
}

resource "aws_lb_target_group" "inside" {
  for_each = local.inside_ports
  name     = "${var.uid}-i-${each.key}"
  port     = each.value
  protocol = "TCP"
  vpc_id   = local.vpc_id
  # a node may be led to itself: with its own address as the sender that would not work
  preserve_client_ip   = false
  deregistration_delay = 20
  tags                 = local.tags
  health_check {
    protocol            = "TCP"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_target_group" "outside" {
  for_each             = local.outside_ports
  name                 = "${var.uid}-o-${each.key}"
  port                 = each.value
  protocol             = "TCP"
  vpc_id               = local.vpc_id
  preserve_client_ip   = false
  deregistration_delay = 20
  tags                 = local.tags
  health_check {
    protocol            = "TCP"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "inside" {
  for_each          = aws_lb_target_group.inside
  load_balancer_arn = aws_lb.inside.arn
  port              = each.value.port
  protocol          = "TCP"
  default_action {
    type             = "forward"
    target_group_arn = each.value.arn
  }
}

resource "aws_lb_listener" "outside" {
  for_each          = aws_lb_target_group.outside
  load_balancer_arn = aws_lb.outside[0].arn
  port              = each.value.port
  protocol          = "TCP"
  default_action {
    type             = "forward"
    target_group_arn = each.value.arn
  }
}
