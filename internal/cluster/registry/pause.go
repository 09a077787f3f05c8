package registry

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Pause is the image that holds a pod's namespaces. It is made here, for each
// architecture, so that no pod needs a registry.
const Pause = "proa.local/pause:2"

// AddPause puts the pause image into the store if it is not there.
func (s *Store) AddPause() error {
	if slices.ContainsFunc(s.Images(), func(i Image) bool { return i.Name == Pause }) {
		return nil
	}
	archive, err := pauseArchive()
	if err != nil {
		return err
	}
	_, err = s.Import(bytes.NewReader(archive), Pause)
	return err
}

// pauseArchive is an OCI archive with the image for every architecture.
func pauseArchive() ([]byte, error) {
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, arch := range []string{"amd64", "arm64"} {
		layer, err := pauseLayer(arch)
		if err != nil {
			return nil, err
		}
		l, err := addBlob(t, types.OCIUncompressedLayer, layer)
		if err != nil {
			return nil, err
		}
		c, err := addJSON(t, types.OCIConfigJSON, v1.ConfigFile{
			Architecture: arch, OS: "linux",
			Config: v1.Config{Entrypoint: []string{"/pause"}, WorkingDir: "/", User: "65535:65535"},
			RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{l.Digest}},
		})
		if err != nil {
			return nil, err
		}
		m, err := addJSON(t, types.OCIManifestSchema1, v1.Manifest{
			SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: c, Layers: []v1.Descriptor{l},
		})
		if err != nil {
			return nil, err
		}
		m.Platform = &v1.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, m)
	}
	root, err := addJSON(t, types.OCIImageIndex, index)
	if err != nil {
		return nil, err
	}
	top, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{root}})
	if err != nil {
		return nil, err
	}
	if err := addFile(t, "index.json", 0o644, top); err != nil {
		return nil, err
	}
	return out.Bytes(), t.Close()
}

func addJSON(t *tar.Writer, kind types.MediaType, value any) (v1.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return addBlob(t, kind, data)
}

func addBlob(t *tar.Writer, kind types.MediaType, data []byte) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: kind, Size: size, Digest: digest}, addFile(t, "blobs/sha256/"+digest.Hex, 0o644, data)
}

func addFile(t *tar.Writer, name string, mode int64, data []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

// pauseLayer is the program, and what runtimes mount over in every sandbox: made
// once here instead of once for each pod.
func pauseLayer(arch string) ([]byte, error) {
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	for _, name := range []string{"dev/", "etc/", "proc/", "sys/"} {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}); err != nil {
			return nil, err
		}
	}
	if err := addFile(t, "etc/resolv.conf", 0o644, nil); err != nil {
		return nil, err
	}
	if err := addFile(t, "pause", 0o755, pauseProgram(arch)); err != nil {
		return nil, err
	}
	return out.Bytes(), t.Close()
}

// pauseProgram is a static ELF program of some 200 bytes: it ignores SIGCHLD,
// which makes the kernel reap what a pod with a shared process namespace leaves
// behind, and sleeps. A program in Go would cost each pod a megabyte.
func pauseProgram(arch string) []byte {
	machine, code := uint16(62), pauseAMD64()
	if arch == "arm64" {
		machine, code = 183, pauseARM64()
	}
	// What rt_sigaction is given: handler SIG_IGN, no flags, no restorer, no mask.
	code = append(code, make([]byte, 32)...)
	code[len(code)-32] = 1

	const base, header = 0x400000, 64 + 56
	size := uint64(header + len(code))
	elf := []any{
		[16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1},
		uint16(2), machine, uint32(1), // executable, version
		uint64(base + header), uint64(64), uint64(0), // entry, program headers, no sections
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), // load, read and execute
		uint64(0), uint64(base), uint64(base), size, size, uint64(0x10000),
		code,
	}
	var out bytes.Buffer
	for _, part := range elf {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			panic(fmt.Sprintf("the pause program: %v", err)) // all parts have a fixed size
		}
	}
	return out.Bytes()
}

func pauseAMD64() []byte {
	return []byte{
		0xb8, 13, 0, 0, 0, // mov eax, rt_sigaction
		0xbf, 17, 0, 0, 0, // mov edi, SIGCHLD
		0x48, 0x8d, 0x35, 19, 0, 0, 0, // lea rsi, [rip+19]: behind the code
		0x31, 0xd2, // xor edx, edx
		0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
		0x0f, 0x05, // syscall
		0xb8, 34, 0, 0, 0, // mov eax, pause
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to mov eax, pause
	}
}

func pauseARM64() []byte {
	mov := func(register, value uint32) uint32 { return 0xd2800000 | value<<5 | register }
	const svc = 0xd4000001
	adr := func(register, bytes uint32) uint32 { return 0x10000000 | bytes&3<<29 | bytes>>2<<5 | register }
	code := []uint32{
		mov(8, 134), mov(0, 17), adr(1, 48), mov(2, 0), mov(3, 8), svc, // rt_sigaction
		mov(8, 73), mov(0, 0), mov(1, 0), mov(2, 0), mov(3, 0), svc, // ppoll
		0x14000000 | (^uint32(6)+1)&0x3ffffff, // b to the first of the line above
		0xd503201f,                            // nop
	}
	var out []byte
	for _, word := range code {
		out = binary.LittleEndian.AppendUint32(out, word)
	}
	return out
}
