// Parses an event log and replays it against SHA-256 registers as often as standard input says, with
// go-eventlog: the other side of bench/replay_log.py. Prints for each line read nanoseconds that
// passed, and nanoseconds of processor time of the whole process.
package main

import (
	"bufio"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-eventlog/proto/state"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func bank(data []byte) register.PCRBank {
	values := map[string]string{}
	must(0, json.Unmarshal(data, &values))
	found := register.PCRBank{TCGHashAlgo: state.HashAlgo_SHA256}
	for number, value := range values {
		found.PCRs = append(found.PCRs, register.PCR{
			Index: must(strconv.Atoi(number)), Digest: must(hex.DecodeString(value)), DigestAlg: crypto.SHA256,
		})
	}
	return found
}

func processorTime() int64 {
	var usage syscall.Rusage
	must(0, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	given := map[string][]byte{}
	for _, argument := range os.Args[1:] {
		role, path, _ := strings.Cut(argument, "=")
		given[role] = must(os.ReadFile(path))
	}
	pcrs := bank(given["pcrs"])
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		count := must(strconv.Atoi(strings.TrimSpace(lines.Text())))
		start, used := time.Now(), processorTime()
		for range count {
			must(tcg.ParseAndReplay(given["log"], pcrs.MRs(), tcg.ParseOpts{}))
		}
		fmt.Println(time.Since(start).Nanoseconds(), processorTime()-used)
	}
}
