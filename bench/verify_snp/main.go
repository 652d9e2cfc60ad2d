// Verifies one SNP report with its chain and list as often as standard input says, with
// go-sev-guest: the other side of bench/verify_snp.py. Prints for each line read nanoseconds that
// passed, and nanoseconds of processor time of the whole process.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
)

type files map[string][]byte

func (f files) Get(url string) ([]byte, error) {
	if strings.HasSuffix(url, "/crl") {
		return f["crl"], nil
	}
	return nil, errors.New("no network: " + url)
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func once(given files, now time.Time, vmpl int) error {
	report, err := abi.ReportToProto(given["report"])
	if err != nil {
		return err
	}
	attestation := &spb.Attestation{
		Report: report,
		CertificateChain: &spb.CertificateChain{
			VcekCert: given["vek"], AskCert: given["ask"], ArkCert: given["ark"],
			Extras: map[string][]byte{},
		},
	}
	options := &verify.Options{
		CheckRevocations: true, DisableCertFetching: true, Getter: given, Now: now,
	}
	if err := verify.SnpAttestation(attestation, options); err != nil {
		return err
	}
	return validate.SnpAttestation(attestation, &validate.Options{
		GuestPolicy:               abi.SnpPolicy{SMT: true},
		ReportData:                make([]byte, 64),
		HostData:                  make([]byte, 32),
		Measurement:               report.Measurement,
		VMPL:                      &vmpl,
		MinimumTCB:                kds.TCBParts{BlSpl: 4, SnpSpl: 24, UcodeSpl: 219},
		MinimumLaunchTCB:          kds.TCBParts{BlSpl: 4, SnpSpl: 24, UcodeSpl: 219},
		PermitProvisionalFirmware: true,
		PlatformInfo:              &abi.SnpPlatformInfo{SMTEnabled: true, ECCEnabled: true, AliasCheckComplete: true},
	})
}

func processorTime() int64 {
	var usage syscall.Rusage
	must(0, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	now := must(time.Parse(time.RFC3339, os.Args[1]))
	given := files{}
	for _, argument := range os.Args[2:] {
		role, path, _ := strings.Cut(argument, "=")
		given[role] = must(os.ReadFile(path))
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		count := must(strconv.Atoi(strings.TrimSpace(lines.Text())))
		start, used := time.Now(), processorTime()
		for range count {
			must(0, once(given, now, 0))
		}
		fmt.Println(time.Since(start).Nanoseconds(), processorTime()-used)
	}
}
