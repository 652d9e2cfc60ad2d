package main

import (
	"bytes"
	"testing"
	"unsafe"
)

func answer(vendor string) []byte {
	return append(make([]byte, vendorBytes), append([]byte(vendor), make([]byte, answerSize-vendorBytes-len(vendor))...)...)
}

func TestTheNameIsInTheVendorsBytes(t *testing.T) {
	name, err := nameIn(answer(`{"device_name":"pvc-0c5b","disk_type":"PERSISTENT"}`))
	if err != nil || name != "pvc-0c5b" {
		t.Fatal(name, err)
	}
}

func TestWhatIsNoNameIsRefused(t *testing.T) {
	for _, vendor := range []string{"", "{}", `{"device_name":"a b"}`, `{"device_name":"../x"}`, "junk",
		`{"device_name":"` + string(bytes.Repeat([]byte{'a'}, 64)) + `"}`} {
		if name, err := nameIn(answer(vendor)); err == nil {
			t.Error(vendor, "gave", name)
		}
	}
}

func TestOnlyANamespaceIsAsked(t *testing.T) {
	for _, path := range []string{"", "-d", "-d/dev/sda", "-d/dev/nvme0n1/../sda", "-d/dev/nvme0"} {
		if _, err := attachedAs([]string{path}); err == nil {
			t.Error(path)
		}
	}
}

func TestTheCommandHasTheKernelsSize(t *testing.T) {
	if size := unsafe.Sizeof(command{}); size != adminRequest>>16&0x3FFF {
		t.Fatal(size)
	}
}
