// Command google-nvme-id says by which name a disk of Google's was attached to this machine.
//
//	google-nvme-id -d/dev/nvme0n2
//
// Google's disk driver runs a program of this name and output before it uses a disk, and no node
// image has Google's own, which is a script around other programs. It prints ID_SERIAL_SHORT and
// ID_SERIAL, or ends with an error; what the disk says is no more than a name to compare.
//
// Sources: NVM Express Base Specification 2.0, 5.17 (Identify), and 5.17.2.1 (Identify Namespace:
// bytes 384 to 4095 are the vendor's); Linux, include/uapi/linux/nvme_ioctl.h; Google, guest-configs,
// google_nvme_id (JSON with "device_name" in these bytes).
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"unsafe"
)

const (
	// _IO('N', 0x40): the number of the namespace
	namespaceRequest = 0x4E40
	// _IOWR('N', 0x41, struct nvme_passthru_cmd), 72 bytes
	adminRequest = 0xC0484E41
	identify     = 0x06
	answerSize   = 4096
	vendorBytes  = 384
	timeoutMs    = 5000
)

// struct nvme_passthru_cmd
type command struct {
	opcode, flags              uint8
	reserved                   uint16
	namespace, word2, word3    uint32
	metadata, address          uint64
	metadataLength, dataLength uint32
	word10, word11, word12     uint32
	word13, word14, word15     uint32
	timeout, result            uint32
}

var (
	devicePath = regexp.MustCompile(`^/dev/nvme[0-9]{1,4}n[0-9]{1,4}(p[0-9]{1,4})?$`)
	// Google, "Resource naming": a device name
	deviceName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)
)

func main() {
	name, err := attachedAs(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "google-nvme-id:", err)
		os.Exit(1)
	}
	fmt.Printf("ID_SERIAL_SHORT=%s\nID_SERIAL=Google_PersistentDisk_%s\n", name, name)
}

func attachedAs(arguments []string) (string, error) {
	path := strings.TrimPrefix(strings.Join(arguments, ""), "-d")
	if !devicePath.MatchString(path) {
		return "", fmt.Errorf("%.80q: expected -d/dev/nvme0n1", path)
	}
	device, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer device.Close()
	answer, err := identifyNamespace(device.Fd())
	if err != nil {
		return "", fmt.Errorf("%s: identify: %w", path, err)
	}
	return nameIn(answer)
}

func identifyNamespace(device uintptr) ([]byte, error) {
	number, _, errno := syscall.Syscall(syscall.SYS_IOCTL, device, namespaceRequest, 0)
	if errno != 0 {
		return nil, errno
	}
	answer := make([]byte, answerSize)
	asked := command{
		opcode:     identify,
		namespace:  uint32(number),
		address:    uint64(uintptr(unsafe.Pointer(&answer[0]))),
		dataLength: answerSize,
		timeout:    timeoutMs,
	}
	status, _, errno := syscall.Syscall(
		syscall.SYS_IOCTL, device, adminRequest, uintptr(unsafe.Pointer(&asked)))
	if errno != 0 {
		return nil, errno
	}
	if status != 0 {
		return nil, fmt.Errorf("status %#x", status)
	}
	return answer, nil
}

// nameIn reads the vendor's bytes: JSON, then zeros.
func nameIn(answer []byte) (string, error) {
	text, _, _ := bytes.Cut(answer[vendorBytes:], []byte{0})
	var said struct {
		DeviceName string `json:"device_name"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return "", errors.New("it is no disk of Google's: its vendor's bytes are not JSON")
	}
	if !deviceName.MatchString(said.DeviceName) {
		return "", fmt.Errorf("%.80q is no device name", said.DeviceName)
	}
	return said.DeviceName, nil
}
