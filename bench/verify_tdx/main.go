// Verifies one TDX quote with its collateral as often as standard input says, with go-tdx-guest: the
// other side of bench/verify_tdx.py. Prints for each line read nanoseconds that passed, and
// nanoseconds of processor time of the whole process.
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-tdx-guest/verify"
)

type collateral map[string]string

func (c collateral) Get(address string) (map[string][]string, []byte, error) {
	header := func(name, field string) map[string][]string {
		return map[string][]string{name: {url.QueryEscape(c[field])}}
	}
	signed := func(name, field string) []byte {
		return []byte(`{"` + name + `":` + c[field] + `,"signature":"` + c[field+"_signature"] + `"}`)
	}
	switch {
	case strings.Contains(address, "/pckcrl"):
		body, err := hex.DecodeString(c["pck_crl"])
		return header("Sgx-Pck-Crl-Issuer-Chain", "pck_crl_issuer_chain"), body, err
	case strings.Contains(address, "/tcb"):
		return header("Tcb-Info-Issuer-Chain", "tcb_info_issuer_chain"), signed("tcbInfo", "tcb_info"), nil
	case strings.Contains(address, "/qe/identity"):
		return header("Sgx-Enclave-Identity-Issuer-Chain", "qe_identity_issuer_chain"),
			signed("enclaveIdentity", "qe_identity"), nil
	case strings.Contains(address, "RootCA"):
		body, err := hex.DecodeString(c["root_ca_crl"])
		return nil, body, err
	}
	return nil, nil, errors.New("no network: " + address)
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func processorTime() int64 {
	var usage syscall.Rusage
	must(0, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	now := must(time.Parse(time.RFC3339, os.Args[1]))
	files := map[string][]byte{}
	for _, argument := range os.Args[2:] {
		role, path, _ := strings.Cut(argument, "=")
		files[role] = must(os.ReadFile(path))
	}
	roots := x509.NewCertPool()
	roots.AddCert(must(x509.ParseCertificate(files["root"])))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		count := must(strconv.Atoi(strings.TrimSpace(lines.Text())))
		start, used := time.Now(), processorTime()
		for range count {
			given := collateral{}
			must(0, json.Unmarshal(files["bundle"], &given))
			must(0, verify.RawTdxQuote(files["quote"], &verify.Options{
				CheckRevocations: true, GetCollateral: true, Getter: given, Now: now,
				TrustedRoots: roots,
			}))
		}
		fmt.Println(time.Since(start).Nanoseconds(), processorTime()-used)
	}
}
