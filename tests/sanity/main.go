// Command csi-sanity is upstream's suite with one more flag: -csi.fs names the
// file system that every capability asks for, as a StorageClass with fsType
// does. Upstream's own command leaves it out, so that only the driver's default
// would ever be tested.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
)

// outcome is what the suite reports a failure to.
type outcome struct{ code int }

func (o *outcome) Fail() { o.code = 1 }

// withFS sets the file system in the capabilities of every request.
func withFS(fs string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		var capabilities []*csi.VolumeCapability
		switch r := req.(type) {
		case interface{ GetVolumeCapability() *csi.VolumeCapability }:
			capabilities = append(capabilities, r.GetVolumeCapability())
		case interface {
			GetVolumeCapabilities() []*csi.VolumeCapability
		}:
			capabilities = r.GetVolumeCapabilities()
		}
		for _, c := range capabilities {
			if m := c.GetMount(); m != nil && m.FsType == "" {
				m.FsType = fs
			}
		}
		return invoke(ctx, method, req, reply, conn, opts...)
	}
}

// sized fills the caches of sizes that messages keep. The suite compares the
// topologies of two answers with reflection, caches included, and one of them
// has been sent since, and so sized: without this they never are equal.
func sized(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if message, ok := reply.(proto.Message); ok && err == nil {
		proto.Size(message)
	}
	return err
}

func main() {
	c := sanity.NewTestConfig()
	flag.StringVar(&c.Address, "csi.endpoint", c.Address, "the driver's endpoint")
	flag.StringVar(&c.TargetPath, "csi.mountdir", c.TargetPath, "where volumes are published")
	flag.StringVar(&c.StagingPath, "csi.stagingdir", c.StagingPath, "where volumes are staged")
	flag.StringVar(&c.SecretsFile, "csi.secrets", c.SecretsFile, "file with the secrets of each call")
	flag.StringVar(&c.TestVolumeAccessType, "csi.testvolumeaccesstype", c.TestVolumeAccessType, "mount or block")
	flag.StringVar(&c.TestVolumeParametersFile, "csi.testvolumeparameters", c.TestVolumeParametersFile, "file with the parameters of volumes")
	flag.StringVar(&c.TestVolumeMutableParametersFile, "csi.testvolumemutableparameters", c.TestVolumeMutableParametersFile, "file with the mutable parameters of volumes")
	flag.StringVar(&c.TestSnapshotParametersFile, "csi.testsnapshotparameters", c.TestSnapshotParametersFile, "file with the parameters of snapshots")
	flag.Int64Var(&c.TestVolumeSize, "csi.testvolumesize", c.TestVolumeSize, "size of volumes in bytes")
	flag.Int64Var(&c.TestVolumeExpandSize, "csi.testvolumeexpandsize", c.TestVolumeExpandSize, "size of expanded volumes in bytes")
	flag.BoolVar(&c.TestNodeVolumeAttachLimit, "csi.testnodevolumeattachlimit", c.TestNodeVolumeAttachLimit, "attach as many volumes as a node takes")
	fs := flag.String("csi.fs", "", "file system to ask for (default: the driver's choice)")
	flag.Parse()
	c.DialOptions = append(c.DialOptions, grpc.WithChainUnaryInterceptor(sized))
	if *fs != "" {
		c.DialOptions = append(c.DialOptions, grpc.WithChainUnaryInterceptor(withFS(*fs)))
	}
	klog.SetOutput(ginkgo.GinkgoWriter)
	var o outcome
	sanity.Test(&o, c)
	os.Exit(o.code)
}
