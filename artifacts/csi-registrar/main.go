// Command csi-registrar tells the kubelet of a node where a CSI driver's node plugin answers.
//
//	csi-registrar DRIVER ENDPOINT FOLDER
//
// DRIVER is the driver's name, ENDPOINT the path of its socket on the node, FOLDER the kubelet's
// folder of registrations; paths are the same in the pod and on the node. It waits until the
// plugin listens, answers the kubelet's questions on FOLDER/DRIVER-reg.sock, and ends with an error
// if the kubelet says that the registration failed, so that the next start tries again. The plugin
// is not asked anything: what it is called is said by the pod that runs both.
//
// Source: Kubernetes, "Device plugins and CSI drivers", pluginregistration/v1/api.proto.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// how long the plugin may take to listen, and how often that is looked at
	patience = 2 * time.Minute
	pace     = 500 * time.Millisecond
	// version of CSI that the kubelet speaks with it
	version = "1.0.0"
	// requests are a few words; what is longer is refused before it is read
	longest = 64 * 1024
)

// Container Storage Interface 1.12, GetPluginInfoResponse.name: a domain name of at most 63 bytes
var driverName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

type server struct {
	registration.UnimplementedRegistrationServer
	driver, endpoint string
	failed           chan error
}

func (s *server) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              s.driver,
		Endpoint:          s.endpoint,
		SupportedVersions: []string{version},
	}, nil
}

func (s *server) NotifyRegistrationStatus(
	_ context.Context, status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		fmt.Fprintf(os.Stderr, "the kubelet has registered %s\n", s.driver)
		return &registration.RegistrationStatusResponse{}, nil
	}
	select {
	case s.failed <- fmt.Errorf("the kubelet did not register %s: %.500q", s.driver, status.GetError()):
	default: // it has been told already
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "csi-registrar: %v\n", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 3 || !driverName.MatchString(arguments[0]) {
		return errors.New("expected DRIVER ENDPOINT FOLDER")
	}
	driver, endpoint, folder := arguments[0], arguments[1], arguments[2]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := await(ctx, endpoint); err != nil {
		return err
	}
	socket := filepath.Join(folder, driver+"-reg.sock")
	// one that a killed predecessor left; the kubelet sees the new one appear
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	old := syscall.Umask(0o077)
	listener, err := net.Listen("unix", socket)
	syscall.Umask(old)
	if err != nil {
		return err
	}
	told := &server{driver: driver, endpoint: endpoint, failed: make(chan error, 1)}
	serving := grpc.NewServer(grpc.MaxRecvMsgSize(longest))
	registration.RegisterRegistrationServer(serving, told)
	served := make(chan error, 1)
	go func() { served <- serving.Serve(listener) }()
	defer serving.Stop() // removes the socket too: the kubelet forgets the driver
	select {
	case <-ctx.Done():
		return nil
	case err := <-told.failed:
		return err
	case err := <-served:
		return err
	}
}

// await returns once something listens at the endpoint.
func await(ctx context.Context, endpoint string) error {
	deadline, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		connection, err := (&net.Dialer{}).DialContext(deadline, "unix", endpoint)
		if err == nil {
			return connection.Close()
		}
		select {
		case <-deadline.Done():
			return fmt.Errorf("nothing listens at %s: %w", endpoint, err)
		case <-time.After(pace):
		}
	}
}
