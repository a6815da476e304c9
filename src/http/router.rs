//! Method and path to a handler.

use super::request::{Method, Request};
use super::response::Response;
use super::status::{Refusal, Status};

type Handler = Box<dyn Fn(&mut Request<'_>) -> Response + Send + Sync>;

/// The routes of a server.
///
/// A path is literal but for segments in braces: `/channels/{name}` has `/channels/a%2Fb` with the
/// [`parameter`](Request::parameter) `name` of `a/b`. The first route that fits is taken. HEAD is
/// answered as GET, and OPTIONS, where no route has it, with the methods there are. A path that
/// only other methods have is `405` with `Allow`; a path that no route has goes to the fallback.
///
/// ```
/// use newswire::http::{Method, Response, Router, Status};
///
/// let mut router = Router::new();
/// router.route(Method::Get, "/hello/{who}", |request| {
///     Response::text(Status::OK, format!("Hello, {}.\n", request.parameter("who")))
/// });
/// ```
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
    fallback: Option<Handler>,
}

struct Route {
    method: Method,
    segments: Vec<Segment>,
    handler: Handler,
}

enum Segment {
    Literal(&'static str),
    Parameter(&'static str),
}

impl Router {
    /// Without a route: everything is `404`.
    pub fn new() -> Router {
        Router::default()
    }

    /// Adds a route. A handler answers with a [`Response`], or with what becomes one: a
    /// [`Refusal`], or a `Result` of the two.
    pub fn route<R: Into<Response>>(
        &mut self,
        method: Method,
        path: &'static str,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> &mut Router {
        let segments = path.trim_start_matches('/').split('/').map(|segment| {
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) => Segment::Parameter(name),
                None => Segment::Literal(segment),
            }
        });
        let handler = Box::new(move |request: &mut Request<'_>| handler(request).into());
        self.routes.push(Route { method, segments: segments.collect(), handler });
        self
    }

    /// Adds a route for GET, and so for HEAD.
    pub fn get<R: Into<Response>>(
        &mut self,
        path: &'static str,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> &mut Router {
        self.route(Method::Get, path, handler)
    }

    /// What answers a path that no route has, whatever the method.
    pub fn fallback<R: Into<Response>>(
        &mut self,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> &mut Router {
        self.fallback = Some(Box::new(move |request: &mut Request<'_>| handler(request).into()));
        self
    }

    pub(super) fn respond(&self, request: &mut Request<'_>) -> Response {
        let mut allowed = Vec::new();
        let mut found = None;
        for route in &self.routes {
            let Some(parameters) = route.fits(request.segments()) else {
                continue;
            };
            allowed.push(route.method);
            let stands_in = request.method() == Method::Head && route.method == Method::Get;
            if route.method == request.method() {
                found = Some((route, parameters));
                break;
            } else if stands_in && found.is_none() {
                found = Some((route, parameters));
            }
        }
        if let Some((route, parameters)) = found {
            request.parameters = parameters;
            return (route.handler)(request);
        }
        if request.method() == Method::Options && request.path() == "*" {
            return Response::empty(Status::NO_CONTENT)
                .field("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS");
        }
        if allowed.is_empty() {
            return match &self.fallback {
                Some(handler) => handler(request),
                None => Refusal::new(Status::NOT_FOUND, "There is nothing at this path.").into(),
            };
        }
        let response = match request.method() {
            Method::Options => Response::empty(Status::NO_CONTENT),
            _ => Refusal::new(
                Status::METHOD_NOT_ALLOWED,
                "This path does not have this method; see Allow.",
            )
            .into(),
        };
        response.field("Allow", allow(&allowed))
    }
}

impl Route {
    fn fits(&self, segments: &[String]) -> Option<Vec<(&'static str, String)>> {
        if segments.len() != self.segments.len() {
            return None;
        }
        let mut parameters = Vec::new();
        for (part, segment) in self.segments.iter().zip(segments) {
            match part {
                Segment::Literal(literal) if literal == segment => {}
                Segment::Literal(_) => return None,
                Segment::Parameter(name) => parameters.push((*name, segment.clone())),
            }
        }
        Some(parameters)
    }
}

/// `Allow = #method` (RFC 9110, 10.2.1)
fn allow(methods: &[Method]) -> String {
    use Method::*;
    let has = |method: &Method| match method {
        Head => methods.contains(&Get) || methods.contains(&Head),
        Options => true,
        _ => methods.contains(method),
    };
    let names: Vec<_> = [Get, Head, Post, Put, Delete, Options]
        .iter()
        .filter(|m| has(m))
        .map(|m| m.name())
        .collect();
    names.join(", ")
}
