// Package certificates describes CertificateSigningRequest of
// certificates.k8s.io/v1.
package certificates

import (
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/proa-dev/proa/internal/api"
	"github.com/proa-dev/proa/internal/api/table"
)

// Kinds of the group. now is the clock that stamps conditions.
func Kinds(now func() time.Time) []*api.Kind {
	return []*api.Kind{{
		GroupVersionKind: certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"),
		Resource:         "certificatesigningrequests",
		ShortNames:       []string{"csr"},
		Cluster:          true,
		New:              func() api.Object { return &certificatesv1.CertificateSigningRequest{} },
		NewList:          func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },
		Reset: api.Resets(func(r, old *certificatesv1.CertificateSigningRequest, sub string) {
			resetRequest(r, old, sub, metav1.NewTime(now()))
		}),
		Validate:  api.Validates(validateRequest),
		ValidName: func(string, bool) []string { return nil },
		Columns: []metav1.TableColumnDefinition{
			table.Name(),
			table.Age(),
			table.Col("SignerName", "string", signerDoc),
			table.Col("Requestor", "string", certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()["request"]),
			table.Col("RequestedDuration", "string", certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc()["expirationSeconds"]),
			table.Col("Condition", "string", "conditions applied to the request. Known conditions are \"Approved\", \"Denied\", and \"Failed\"."),
		},
		Row: api.Rows(func(r *certificatesv1.CertificateSigningRequest) []any {
			asked := "<none>"
			if n := r.Spec.ExpirationSeconds; n != nil {
				asked = duration.HumanDuration(time.Duration(*n) * time.Second)
			}
			return []any{r.Name, table.AgeOf(r), table.None(r.Spec.SignerName), r.Spec.Username, asked, stateCell(r)}
		}),
		Fields: api.FieldsOf(func(r *certificatesv1.CertificateSigningRequest) fields.Set {
			return fields.Set{"spec.signerName": r.Spec.SignerName}
		}),
		Subresources: []api.Subresource{{Name: "status"}, {Name: "approval"}},
	}}
}

const signerDoc = "signerName indicates the requested signer, and is a qualified name."

func stateCell(r *certificatesv1.CertificateSigningRequest) string {
	has := func(t certificatesv1.RequestConditionType) bool { return len(conditions(r, t)) > 0 }
	state := "Pending"
	if has(certificatesv1.CertificateDenied) {
		state = "Denied"
	} else if has(certificatesv1.CertificateApproved) {
		state = "Approved"
	}
	if has(certificatesv1.CertificateFailed) {
		state += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		state += ",Issued"
	}
	return state
}

func conditions(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) []certificatesv1.CertificateSigningRequestCondition {
	var found []certificatesv1.CertificateSigningRequestCondition
	for _, c := range r.Status.Conditions {
		if c.Type == t {
			found = append(found, c)
		}
	}
	return found
}

// Who is the user that a request is made by.
type Who struct {
	Name, UID string
	Groups    []string
	Extra     map[string][]string
}

// SetRequestor writes who asks into a new request: only the API server knows,
// and calls it after Reset, which empties what the client has written there.
func SetRequestor(r *certificatesv1.CertificateSigningRequest, who Who) {
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = who.Name, who.UID, who.Groups, nil
	if len(who.Extra) > 0 {
		r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		for k, v := range who.Extra {
			r.Spec.Extra[k] = v
		}
	}
}

func resetRequest(r, old *certificatesv1.CertificateSigningRequest, sub string, now metav1.Time) {
	if old == nil {
		SetRequestor(r, Who{})
		r.Status = certificatesv1.CertificateSigningRequestStatus{}
		return
	}
	r.Spec = old.Spec
	switch sub {
	case "status":
		keepInstances(r, old, certificatesv1.CertificateApproved)
		keepInstances(r, old, certificatesv1.CertificateDenied)
		stamp(r, old, now)
	case "approval":
		stamp(r, old, now)
		now := r.Status.Conditions
		r.Status = old.Status
		r.Status.Conditions = now
	default:
		r.Status = old.Status
	}
}

// keepInstances gives r the conditions of a type as old has them, unless their
// number has changed: that is for Validate to refuse.
func keepInstances(r, old *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) {
	was := conditions(old, t)
	if len(was) != len(conditions(r, t)) {
		return
	}
	for i := range r.Status.Conditions {
		if r.Status.Conditions[i].Type == t {
			r.Status.Conditions[i] = was[0]
			was = was[1:]
		}
	}
}

func stamp(r, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		same := slices.IndexFunc(old.Status.Conditions, func(o certificatesv1.CertificateSigningRequestCondition) bool {
			return o.Type == c.Type && o.Status == c.Status && !o.LastTransitionTime.IsZero()
		})
		if same >= 0 {
			c.LastTransitionTime = old.Status.Conditions[same].LastTransitionTime
		}
	}
}
