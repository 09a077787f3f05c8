package apiserver

import (
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// connectOptions are what a connection was asked for with, in the form in which
// admission is shown them: the query of exec, attach, port-forward and proxy.
func connectOptions(resource, sub string, q url.Values, rest string) runtime.Object {
	kind := func(k string) metav1.TypeMeta { return metav1.TypeMeta{APIVersion: "v1", Kind: k} }
	on := func(name string) bool { b, _ := strconv.ParseBool(q.Get(name)); return b }
	switch sub {
	case "exec":
		return &corev1.PodExecOptions{TypeMeta: kind("PodExecOptions"), Stdin: on("stdin"), Stdout: on("stdout"), Stderr: on("stderr"), TTY: on("tty"),
			Container: q.Get("container"), Command: q["command"]}
	case "attach":
		return &corev1.PodAttachOptions{TypeMeta: kind("PodAttachOptions"), Stdin: on("stdin"), Stdout: on("stdout"), Stderr: on("stderr"), TTY: on("tty"),
			Container: q.Get("container")}
	case "portforward":
		o := &corev1.PodPortForwardOptions{TypeMeta: kind("PodPortForwardOptions")}
		for _, text := range q["ports"] {
			if n, err := strconv.ParseInt(text, 10, 32); err == nil {
				o.Ports = append(o.Ports, int32(n))
			}
		}
		return o
	}
	switch resource {
	case "pods":
		return &corev1.PodProxyOptions{TypeMeta: kind("PodProxyOptions"), Path: rest}
	case "services":
		return &corev1.ServiceProxyOptions{TypeMeta: kind("ServiceProxyOptions"), Path: rest}
	}
	return &corev1.NodeProxyOptions{TypeMeta: kind("NodeProxyOptions"), Path: rest}
}
