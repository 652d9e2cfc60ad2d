// Command cloud-follow runs a program that reads a folder when it starts, and ends it when the
// folder says something else, so that it is started anew:
//
//	cloud-follow FOLDER PROGRAM ARGUMENT...
//
// It waits until FOLDER has cloud.conf. An argument NAME=@FILE becomes NAME= and what
// FOLDER/FILE has. It ends as the program does, with 0 if it was the folder that changed.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	lookEvery = 2 * time.Second
	mayEndIn  = 10 * time.Second
	needed    = "cloud.conf"
)

func main() {
	if len(os.Args) < 3 {
		fail("expected FOLDER PROGRAM ARGUMENT..., found %d words", len(os.Args)-1)
	}
	os.Exit(run(os.Args[1], os.Args[2], os.Args[3:]))
}

func run(folder string, program string, arguments []string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	seen := digest(folder)
	for waits := false; seen == ""; seen = digest(folder) {
		if !waits {
			fmt.Fprintf(os.Stderr, "cloud-follow: %s has no %s yet\n", folder, needed)
			waits = true
		}
		select {
		case <-signals:
			return 0
		case <-time.After(lookEvery):
		}
	}
	filled := make([]string, len(arguments))
	for i, argument := range arguments {
		filled[i] = fill(folder, argument)
	}
	command := exec.Command(program, filled...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Start(); err != nil {
		fail("%v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	look := time.NewTicker(lookEvery)
	for {
		select {
		case <-ended:
			return command.ProcessState.ExitCode()
		case <-signals:
			end(command, ended)
			return 0
		case <-look.C:
			if digest(folder) != seen {
				fmt.Fprintf(os.Stderr, "cloud-follow: %s has changed\n", folder)
				end(command, ended)
				return 0
			}
		}
	}
}

// end asks the program to end, and ends it if it does not.
func end(command *exec.Cmd, ended chan error) {
	command.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(mayEndIn):
		command.Process.Kill()
		<-ended
	}
}

// digest tells apart what a folder says; "" where it does not have what is needed.
func digest(folder string) string {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return ""
	}
	sum, found := sha256.New(), false
	for _, entry := range entries {
		// a file that is being written has such a name until it is whole
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			return ""
		}
		fmt.Fprintf(sum, "%d %s %d ", len(entry.Name()), entry.Name(), len(data))
		sum.Write(data)
		found = found || entry.Name() == needed
	}
	if !found {
		return ""
	}
	return string(sum.Sum(nil))
}

func fill(folder string, argument string) string {
	name, file, found := strings.Cut(argument, "=@")
	if !found {
		return argument
	}
	data, err := os.ReadFile(filepath.Join(folder, filepath.Base(file)))
	if err != nil {
		fail("%v", err)
	}
	return name + "=" + strings.TrimSpace(string(data))
}

func fail(format string, words ...any) {
	fmt.Fprintf(os.Stderr, "cloud-follow: "+format+"\n", words...)
	os.Exit(1)
}
