//! The variables of the places where Kubernetes has expressions.

use std::sync::{Arc, LazyLock};

use super::env::Env;
use super::shape::{Form, Shape};
use super::types::Type;

/// `request` of admission.
pub static REQUEST: LazyLock<Shape> = LazyLock::new(|| {
    let named = |name: &str, last: &str| object(name, &[("group", text()), ("version", text()), (last, text())]);
    let kind = named("kubernetes.GroupVersionKind", "kind");
    let resource = named("kubernetes.GroupVersionResource", "resource");
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user()),
            ("dryRun", Shape::simple(Form::Bool)),
            ("options", Shape::unknown()),
        ],
    )
});

/// `namespaceObject` of admission.
pub static NAMESPACE: LazyLock<Shape> = LazyLock::new(|| {
    let time = || Shape::simple(Form::Timestamp { date: false });
    let texts = || Shape::list_of(text());
    let condition =
        [("status", text()), ("type", text()), ("lastTransitionTime", time()), ("message", text()), ("reason", text())];
    let conditions = Shape::list_of(object("kubernetes.NamespaceCondition", &condition));
    let metadata = [
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("labels", Shape::map_of(text())),
        ("annotations", Shape::map_of(text())),
        ("UID", text()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", Shape::simple(Form::Int)),
        ("deletionTimestamp", time()),
        ("generation", Shape::simple(Form::Int)),
        ("resourceVersion", text()),
        ("finalizers", texts()),
    ];
    object(
        "kubernetes.Namespace",
        &[
            ("metadata", object("kubernetes.NamespaceMetadata", &metadata)),
            ("spec", object("kubernetes.NamespaceSpec", &[("finalizers", texts())])),
            ("status", object("kubernetes.NamespaceStatus", &[("conditions", conditions), ("phase", text())])),
        ],
    )
});

/// `request` of authorization.
static REVIEW: LazyLock<Shape> = LazyLock::new(|| {
    let selector =
        |name: &str| object(name, &[("rawSelector", text()), ("requirements", Shape::list_of(Shape::unknown()))]);
    let resource = [
        ("namespace", text()),
        ("verb", text()),
        ("group", text()),
        ("version", text()),
        ("resource", text()),
        ("subresource", text()),
        ("name", text()),
        ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
        ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
    ];
    object(
        "kubernetes.SubjectAccessReviewSpec",
        &[
            ("resourceAttributes", object("kubernetes.ResourceAttributes", &resource)),
            (
                "nonResourceAttributes",
                object("kubernetes.NonResourceAttributes", &[("path", text()), ("verb", text())]),
            ),
            ("user", text()),
            ("groups", Shape::list_of(text())),
            ("extra", Shape::map_of(Shape::list_of(text()))),
            ("uid", text()),
        ],
    )
});

fn text() -> Shape {
    Shape::STRING
}

fn object(name: &str, fields: &[(&str, Shape)]) -> Shape {
    Shape::object(name, fields.iter().map(|(name, shape)| (*name, Arc::new(shape.clone()))).collect())
}

fn user() -> Shape {
    let extra = Shape::map_of(Shape::list_of(text()));
    let fields = [("username", text()), ("uid", text()), ("groups", Shape::list_of(text())), ("extra", extra)];
    object("kubernetes.UserInfo", &fields)
}

impl Env {
    /// Of admission: `object` and `oldObject` of the given types, `request` and `namespaceObject`.
    pub fn admission(object: Type) -> Self {
        let env = Self::default().with("object", object.clone()).with("oldObject", object);
        env.with_shape("namespaceObject", &NAMESPACE).with_shape("request", &REQUEST)
    }

    #[must_use]
    pub fn with_authorizer(self) -> Self {
        let own = Type::object("kubernetes.authorization.ResourceCheck");
        let env = self.with("authorizer", Type::object("kubernetes.authorization.Authorizer"));
        env.with("authorizer.requestResource", own)
    }

    /// Of the conditions of authorization webhooks.
    pub fn authorization() -> Self {
        Self::default().with_shape("request", &REVIEW)
    }

    /// Of the claims of a token.
    pub fn claims() -> Self {
        Self::default().with("claims", Type::map(Type::String, Type::Dyn))
    }

    /// Of the user that a token stands for.
    pub fn user() -> Self {
        Self::default().with_shape("user", &user())
    }

    /// Of the selection of devices.
    pub fn device() -> Self {
        Self::default().with("device", Type::Dyn).binding()
    }
}
