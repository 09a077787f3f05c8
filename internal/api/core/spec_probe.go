package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-dev/proa/internal/api/validate"
)

// hooks checks a container's lifecycle and probes.
func (c *specCheck) hooks(ctr *corev1.Container, p *validate.Path) {
	if l := ctr.Lifecycle; l != nil {
		at := p.Child("lifecycle")
		if l.PostStart != nil {
			c.lifecycleHandler(l.PostStart, at.Child("postStart"))
		}
		if l.PreStop != nil {
			c.lifecycleHandler(l.PreStop, at.Child("preStop"))
		}
	}
	if ctr.LivenessProbe != nil {
		c.probe(ctr.LivenessProbe, p.Child("livenessProbe"))
		succeedsOnce(c.e, ctr.LivenessProbe, p.Child("livenessProbe"))
	}
	if r := ctr.ReadinessProbe; r != nil {
		c.probe(r, p.Child("readinessProbe"))
		if r.TerminationGracePeriodSeconds != nil {
			c.e.Invalid(p.Child("readinessProbe").Child("terminationGracePeriodSeconds"), r.TerminationGracePeriodSeconds, "must not be set for readinessProbes")
		}
	}
	if ctr.StartupProbe != nil {
		c.probe(ctr.StartupProbe, p.Child("startupProbe"))
		succeedsOnce(c.e, ctr.StartupProbe, p.Child("startupProbe"))
	}
}

func succeedsOnce(e *validate.Errs, probe *corev1.Probe, p *validate.Path) {
	if probe.SuccessThreshold != 1 {
		e.Invalid(p.Child("successThreshold"), probe.SuccessThreshold, "must be 1")
	}
}

func (c *specCheck) probe(probe *corev1.Probe, p *validate.Path) {
	h := &probe.ProbeHandler
	c.handler(handler{h.Exec, h.HTTPGet, h.TCPSocket, h.GRPC, nil}, p)
	validate.NotBelowZero(c.e, probe.InitialDelaySeconds, p.Child("initialDelaySeconds"))
	validate.NotBelowZero(c.e, probe.TimeoutSeconds, p.Child("timeoutSeconds"))
	validate.NotBelowZero(c.e, probe.PeriodSeconds, p.Child("periodSeconds"))
	validate.NotBelowZero(c.e, probe.SuccessThreshold, p.Child("successThreshold"))
	validate.NotBelowZero(c.e, probe.FailureThreshold, p.Child("failureThreshold"))
	if probe.TerminationGracePeriodSeconds != nil {
		validate.AboveZero(c.e, *probe.TerminationGracePeriodSeconds, p.Child("terminationGracePeriodSeconds"))
	}
}

func (c *specCheck) lifecycleHandler(h *corev1.LifecycleHandler, p *validate.Path) {
	c.handler(handler{h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep}, p)
}

// handler is what a probe or a hook does: exactly one of these.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (c *specCheck) handler(h handler, p *validate.Path) {
	e, n := c.e, 0
	first := func(p *validate.Path) bool {
		n++
		if n > 1 {
			e.Forbidden(p, "may not specify more than 1 handler type")
		}
		return n == 1
	}
	if at := p.Child("exec"); h.exec != nil && first(at) && len(h.exec.Command) == 0 {
		e.Required(at.Child("command"), "")
	}
	if at := p.Child("httpGet"); h.http != nil && first(at) {
		if h.http.Path == "" {
			e.Required(at.Child("path"), "")
		}
		validate.PortOrName(e, h.http.Port, at.Child("port"))
		validate.OneOf(e, at.Child("scheme"), h.http.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
		for _, header := range h.http.HTTPHeaders {
			e.Invalids(at.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))
		}
	}
	if at := p.Child("tcpSocket"); h.tcp != nil && first(at) {
		validate.PortOrName(e, h.tcp.Port, at.Child("port"))
	}
	if at := p.Child("grpc"); h.grpc != nil && first(at) {
		validate.PortOrName(e, intstr.FromInt32(h.grpc.Port), at.Child("port"))
	}
	if at := p.Child("sleep"); h.sleep != nil && first(at) {
		if grace := c.spec.TerminationGracePeriodSeconds; grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *grace) {
			e.Invalid(at, h.sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))
		}
	}
	if n == 0 {
		e.Required(p, "must specify a handler type")
	}
}
