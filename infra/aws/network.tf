# A VPC of its own, unless one is named: private subnets for nodes, public ones for the load
# balancer and for the way out (nodes fetch artifacts; nobody reaches them from outside).

resource "aws_vpc" "this" {
  count                = local.make_network ? 1 : 0
  cidr_block           = var.node_cidr
  enable_dns_hostnames = true
  enable_dns_support   = true
  tags                 = merge(local.tags, { Name = var.uid })
}

# the default group of a new VPC lets its members reach each other: nobody is a member, and it is empty
resource "aws_default_security_group" "this" {
  count  = local.make_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = "${var.uid}-nobody" })
}

resource "aws_subnet" "nodes" {
  for_each          = local.make_network ? toset(local.zones) : toset([])
  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.node_cidr, 4, index(local.zones, each.key))
  tags              = merge(local.tags, local.integration, { Name = "${var.uid}-nodes-${each.key}" })
}

resource "aws_subnet" "public" {
  for_each          = local.make_network ? toset(local.zones) : toset([])
  vpc_id            = aws_vpc.this[0].id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.node_cidr, 8, 240 + index(local.zones, each.key))
  tags              = merge(local.tags, local.integration, { Name = "${var.uid}-public-${each.key}" })
}

resource "aws_internet_gateway" "this" {
  count  = local.make_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = var.uid })
}

resource "aws_route_table" "public" {
  count  = local.make_network ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = "${var.uid}-public" })
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this[0].id
  }
}

resource "aws_route_table_association" "public" {
  for_each       = aws_subnet.public
  subnet_id      = each.value.id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  for_each = aws_subnet.public
  domain   = "vpc"
  tags     = merge(local.tags, { Name = "${var.uid}-nat-${each.key}" })
}

resource "aws_nat_gateway" "this" {
  for_each      = aws_subnet.public
  subnet_id     = each.value.id
  allocation_id = aws_eip.nat[each.key].id
  tags          = merge(local.tags, { Name = "${var.uid}-${each.key}" })
  depends_on    = [aws_internet_gateway.this]
}

resource "aws_route_table" "nodes" {
  for_each = aws_subnet.nodes
  vpc_id   = aws_vpc.this[0].id
  tags     = merge(local.tags, { Name = "${var.uid}-nodes-${each.key}" })
  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.this[each.key].id
  }
}

resource "aws_route_table_association" "nodes" {
  for_each       = aws_subnet.nodes
  subnet_id      = each.value.id
  route_table_id = aws_route_table.nodes[each.key].id
}
