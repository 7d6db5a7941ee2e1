//! OpenAPI: the table of routes as an OpenAPI 3.1 document.
//!
//! Memory: the document is made for the request that asks, some hundred KiB, and dropped.

use super::{Access, Doc, Field, Kind, SUBJECTS};
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder, RefOr, Required,
    Response, ResponseBuilder, SecurityRequirement, ServerBuilder,
};

/// The document.
pub fn document() -> OpenApi {
    let mut paths = PathsBuilder::new();
    for (subject, docs) in SUBJECTS {
        for doc in docs {
            paths = paths.path(doc.path(), PathItem::new(method(doc), operation(subject, doc)));
        }
    }
    let info = InfoBuilder::new()
        .title("Hawkeye")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Open-Falcon's API and Hawkeye's own; docs/api.md has the same with examples."));
    let apitoken = ApiKeyValue::with_description("Apitoken", "JSON: {\"name\":…,\"sig\":…}");
    let components = ComponentsBuilder::new()
        .security_scheme("apitoken", SecurityScheme::ApiKey(ApiKey::Header(apitoken)))
        .security_scheme("bearer", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()))
        .security_scheme("basic", SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build()));
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/api/v1").build()]))
        .tags(Some(SUBJECTS.map(|(subject, _)| TagBuilder::new().name(subject).build())))
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

fn method(doc: &Doc) -> HttpMethod {
    match doc.method() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn operation(subject: &str, doc: &Doc) -> OperationBuilder {
    let example = format!("Example: {} {}", doc.method(), doc.example_path());
    let mut operation = OperationBuilder::new()
        .tag(subject)
        .summary(Some(doc.text))
        .description(Some(example))
        .operation_id(Some(doc.line));
    let names = doc.path().split('{').skip(1).filter_map(|part| part.split('}').next());
    for name in names {
        let kind = if name.ends_with("name") { Kind::Text } else { Kind::Int };
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(schema(kind))),
        );
    }
    if doc.method() == "GET" {
        for field in doc.all_fields() {
            operation = operation.parameter(
                ParameterBuilder::new()
                    .name(field.name)
                    .parameter_in(ParameterIn::Query)
                    .required(if field.is_required { Required::True } else { Required::False })
                    .description((!field.text.is_empty()).then_some(field.text))
                    .schema(Some(schema(field.kind))),
            );
        }
    } else if !doc.example.body.is_empty() {
        let example = serde_json::from_str(doc.example.body).unwrap_or_default();
        let content = ContentBuilder::new().schema(Some(body(doc))).example(Some(example)).build();
        operation =
            operation.request_body(Some(RequestBodyBuilder::new().content("application/json", content).build()));
    }
    if doc.access != Access::Anybody {
        let none: [String; 0] = [];
        operation = operation.securities(Some(
            ["apitoken", "bearer", "basic"].map(|scheme| SecurityRequirement::new(scheme, none.clone())),
        ));
        operation = operation.response("401", ResponseBuilder::new().description("no valid session or token"));
    }
    operation
        .response("200", answer(doc))
        .response("400", ResponseBuilder::new().description("a field is wrong, or the caller may not do this"))
}

fn answer(doc: &Doc) -> Response {
    let content = if doc.example.is_stream { "text/event-stream" } else { "application/json" };
    let example = serde_json::from_str(doc.answer).ok();
    let media = ContentBuilder::new().example(example).build();
    ResponseBuilder::new().description("done, or the answer").content(content, media).build()
}

/// The schema of a body: a list, where the route takes one, or an object of its fields.
fn body(doc: &Doc) -> RefOr<Schema> {
    if doc.example.body.starts_with('[') {
        return ArrayBuilder::new().build().into();
    }
    let object = doc.all_fields().fold(ObjectBuilder::new(), |object, field: &Field| {
        let object = object.property(field.name, schema(field.kind));
        if field.is_required { object.required(field.name) } else { object }
    });
    object.build().into()
}

fn schema(kind: Kind) -> RefOr<Schema> {
    let of = |kind: Type| ObjectBuilder::new().schema_type(SchemaType::new(kind)).build();
    match kind {
        Kind::Text => of(Type::String).into(),
        Kind::Int => of(Type::Integer).into(),
        Kind::Flag => {
            let number = ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).enum_values(Some([0, 1]));
            Schema::OneOf(OneOfBuilder::new().item(number.build()).item(of(Type::Boolean)).build()).into()
        }
        Kind::Number => of(Type::Number).into(),
        Kind::Object => of(Type::Object).into(),
        Kind::Texts => ArrayBuilder::new().items(of(Type::String)).build().into(),
        Kind::Ints => ArrayBuilder::new().items(of(Type::Integer)).build().into(),
    }
}
