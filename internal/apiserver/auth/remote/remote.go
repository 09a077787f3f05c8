// Package remote asks webhooks who the owner of a token is (TokenReview) and
// whether a user may do something (SubjectAccessReview). Answers are remembered
// for a while, so that a slow webhook is felt once.
package remote

import (
	"encoding/json"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// versions of the reviews that can be asked.
var versions = []string{"v1", "v1beta1"}

// known says whether a version of a review can be asked, and otherwise what can.
func known(version string) error {
	if slices.Contains(versions, version) {
		return nil
	}
	return fmt.Errorf("unsupported version %q: write v1 or v1beta1", version)
}

// read an answer, which must be a review of the kind that was sent if it says what
// it is.
func read(answer []byte, sent metav1.TypeMeta, into interface{ got() metav1.TypeMeta }) error {
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("the webhook's answer is no %s: %w", sent.Kind, err)
	}
	if got := into.got(); got != (metav1.TypeMeta{}) && got != sent {
		return fmt.Errorf("the webhook's answer is a %s of %s: it must be the %s of %s that it was sent, with a status", got.Kind, got.APIVersion, sent.Kind, sent.APIVersion)
	}
	return nil
}
