# Two commands matter: `./constellation mini up` and `make test`. The rest is for people who work on the code.

PYTHON ?= python3
ENVIRONMENT = $(shell $(PYTHON) ./constellation --dev-env)
RUN = PYTHONPATH=src $(ENVIRONMENT)/bin/python

.PHONY: check test test-vm test-vm-image test-vm-clouds evidence every-bit flood fuzz golden bench bench-attestation docs drill-upgrade drill-chaos drill-cloud-aws drill-cloud-azure drill-cloud-azure-disk drill-cloud-gcp drill-cloud-openstack drill-openstack-programs stubs format

check: ## format, lint, types, floors, unit and scenario tests: no root, no network
	$(RUN) tools/test.py check

test: ## everything, the cluster tests on this machine included (root)
	$(RUN) tools/test.py all

test-vm: ## a Debian 13 machine (systemd, cgroup v2) under QEMU without KVM makes a cluster (root): WITHOUT=cluster, PROCESSORS, MINUTES; writes bench/results/vm-debian-13.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.vm.run $(addprefix --without ,$(WITHOUT)) $(addprefix --processors ,$(PROCESSORS)) $(addprefix --minutes ,$(MINUTES))

test-vm-clouds: ## node images of clouds start under QEMU without KVM, each with its cloud's disks, a metadata service and TPM of ours (root): ONLY=aws-aws-nitro-tpm, MINUTES, PROCESSORS; writes bench/results/vm-clouds.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.vm.cloud_run $(addprefix --only ,$(ONLY)) $(addprefix --processors ,$(PROCESSORS)) $(addprefix --minutes ,$(MINUTES))

test-vm-image: ## a VM's node image, built twice, starts under QEMU without KVM, is judged by its evidence, keeps a state disk, and becomes a Kubernetes node, then two (root): MINUTES of one machine, PROCESSORS, ONLY=step; writes bench/results/vm-image.json, vm-image-disk.json, vm-image-node.json, vm-image-worker.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.vm.image_run $(addprefix --only ,$(ONLY)) $(addprefix --processors ,$(PROCESSORS)) $(addprefix --minutes ,$(MINUTES))

evidence: ## verify published evidence of real machines, and edits of it: CONSTELLATION_EVIDENCE or ../shared/evidence
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python tests/evidence/run.py

evidence-of-packages: ## the same of the test data that Google's Go modules carry (the Go module proxy)
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python tests/evidence/packages.py

every-bit: ## flip every bit of one published report and quote of each kind: none may be accepted
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -W ignore tests/evidence/every_bit.py

fuzz: ## coverage-guided fuzzing of every parser: SECONDS of each, or UNTIL a sum; TARGET=name for one
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.fuzz.run --seconds $(or $(SECONDS),60) $(addprefix --until ,$(UNTIL)) $(addprefix --target ,$(TARGET))

flood: ## 100,000 bad connections against each server that listens before it knows its peer: TARGET=word for some
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.flood.run $(addprefix --connections ,$(CONNECTIONS)) $(addprefix --target ,$(TARGET))

interruptions: ## init cut off after each of its steps on real clusters (root): HOW=word for one way
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.cluster.interruptions $(addprefix --how ,$(HOW))

golden: ## write generated files anew; then read the diff
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python tools/golden.py

bench: ## measure; writes bench/results/*.json and prints the table
	$(RUN) bench/run.py

bench-attestation: ## compare verification with Go's and Rust's; needs published evidence and the Go module proxy
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python bench/attestation.py

drill-upgrade: ## roll a new image out to 3+2 nodes under load, count failed requests, keep the figures (root); KIND=minor: Kubernetes' next minor version too
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.drills.upgrade $(addprefix --kind ,$(KIND)) $(ARGUMENTS)

drill-chaos: ## power, partition, balancer, disk, suspend, clocks under load on 3+2 nodes (root): DRILL="words" for some, MINUTES of power-offs
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.drills.chaos $(addprefix --drill ,$(DRILL)) $(addprefix --minutes ,$(MINUTES)) $(addprefix --seed ,$(SEED))

drill-cloud-openstack: ## OpenStack's own components, built from source, in a 1+1 cluster against a real Keystone and a fake of the rest (root); writes bench/results/drill-cloud-openstack.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.drills.cloud_openstack

drill-openstack-programs: ## the same programs without nodes: a real Keystone, etcd and API server, in a minute (root); writes bench/results/drill-openstack-programs.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.drills.openstack_programs

drill-cloud-aws: ## AWS' own cloud controller manager and CSI driver, built from source, in a 1+1 cluster against moto's AWS (root, Terraform); writes bench/results/drill-cloud-aws.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.drills.cloud_aws

drill-cloud-azure: ## Azure's own cloud controller manager, built from source, with a real API server, against an Azure of ours (root); writes bench/results/drill-cloud-azure.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.drills.cloud_azure

drill-cloud-azure-disk: ## Azure's own disk driver, the same way (root); writes bench/results/drill-cloud-azure-disk.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.drills.cloud_azure_disk

drill-cloud-gcp: ## Google's own disk driver, built from source, with a real API server, against a Google Cloud of ours (root); writes bench/results/drill-cloud-gcp.json
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python -m tests.drills.cloud_gcp

docs: ## write the reference pages anew
	PYTHONPATH=src:. $(ENVIRONMENT)/bin/python tools/golden.py

stubs: ## generate src/constellation/rpc/stubs
	$(RUN) tools/generate_stubs.py

format:
	$(RUN) -m ruff format src tests tools bench
