//! Method and path to a handler.

use super::files::Files;
use super::head::{Head, Method};
use super::request::{Parameters, Request};
use super::response::Response;
use super::status::{Refusal, Status};
use std::borrow::Cow;
use std::fmt;

type Methods = Box<dyn Fn(&Head) -> &'static [Method] + Send + Sync>;
type Handler = Box<dyn Fn(&mut Request<'_>) -> Response + Send + Sync>;

/// The routes of a server.
///
/// A path is literal, except for segments in braces: `/channels/{name}` has `/channels/a%2Fb` with the
/// [`parameter`](Request::parameter) `name` of `a/b`. The first route that fits answers. A route for GET answers HEAD,
/// too. Where no route has OPTIONS, the router answers it with the methods there are. A path that only other methods have
/// is `405` with `Allow`. A path that no route has goes to the fallback.
///
/// ```
/// use newswire::http::{Method, Response, Router, Status};
///
/// let mut router = Router::new();
/// router.route(Method::Get, "/hello/{name}", |request| {
///     let name = request.parameter("name").unwrap_or("stranger");
///     Response::text(Status::OK, format!("Hello, {name}.\n"))
/// });
/// ```
#[derive(Default)]
pub struct Router {
    /// The segments of the path under which everything is found, too.
    base: Vec<String>,
    routes: Vec<Route>,
    /// The methods that it has, and its handler.
    fallback: Option<(Methods, Handler)>,
}

struct Route {
    method: Method,
    /// The segments of its path.
    parts: Vec<String>,
    handler: Handler,
}

impl Router {
    /// Without a route: everything is `404`.
    pub fn new() -> Router {
        Router::default()
    }

    /// Adds a route. A handler returns a [`Response`], or what becomes one: a [`Refusal`], or a `Result` of the two.
    pub fn route<R: Into<Response>>(
        &mut self,
        method: Method,
        path: &str,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> &mut Router {
        let handler = Box::new(move |request: &mut Request<'_>| handler(request).into());
        let parts = path.trim_start_matches('/').split('/').map(str::to_owned).collect();
        self.routes.push(Route { method, parts, handler });
        self
    }

    /// Adds a route for GET, and so for HEAD.
    pub fn get<R: Into<Response>>(
        &mut self,
        path: &str,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> &mut Router {
        self.route(Method::Get, path, handler)
    }

    /// Answers the paths that no route has, whatever the method.
    pub fn fallback<R: Into<Response>>(
        &mut self,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> &mut Router {
        self.fallback_for(|_| &Method::ALL, handler)
    }

    /// Serves files at the paths that no route has.
    pub fn files(&mut self, files: Files) -> &mut Router {
        self.fallback_for(|_| Files::METHODS, move |request| files.respond(request))
    }

    /// As [`fallback`](Router::fallback), for a handler that knows only these methods of a path.
    pub(crate) fn fallback_for<R: Into<Response>>(
        &mut self,
        methods: impl Fn(&Head) -> &'static [Method] + Send + Sync + 'static,
        handler: impl Fn(&mut Request<'_>) -> R + Send + Sync + 'static,
    ) -> &mut Router {
        let handler = move |request: &mut Request<'_>| handler(request).into();
        self.fallback = Some((Box::new(methods), Box::new(handler)));
        self
    }

    /// Finds everything under this path, too, for a proxy that does not remove it.
    pub(crate) fn base(&mut self, path: &str) {
        self.base = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    }

    /// Removes the base from the segments of a path below it.
    pub(super) fn enter_base(&self, head: &mut Head) {
        let mut segments = head.parts();
        let is_below = self.base.iter().all(|part| segments.next().as_deref() == Some(part));
        if is_below && segments.next().is_some() {
            drop(segments);
            head.base = self.base.len();
        }
    }

    pub(super) fn respond(&self, request: &mut Request<'_>) -> Response {
        // The relative addresses of a page need the slash.
        if let Some(last) = self.base.last().filter(|_| request.segments() == self.base) {
            return Response::empty(Status::TEMPORARY_REDIRECT).field("Location", format!("{last}/"));
        }
        let routes = self.fitting(request);
        let of = |method: Method| routes.iter().find(|route| route.method == method);
        // A route for HEAD comes before one for GET.
        let is_head = request.method() == Method::Head;
        if let Some(route) = of(request.method()).or_else(|| of(Method::Get).filter(|_| is_head)) {
            request.parameters = route.parameters(request.parts());
            return (route.handler)(request);
        }
        if request.method() == Method::Options && request.path() == "*" {
            return Response::for_other_method(Method::Options, names(&Method::ALL));
        }
        match &self.fallback {
            Some((_, handler)) if routes.is_empty() => handler(request),
            None if routes.is_empty() => Refusal::NOTHING_HERE.into(),
            _ => Response::for_other_method(request.method(), names(&methods_of(&routes))),
        }
    }

    /// The methods that the path of a request has, as `Allow` lists them; empty when there is nothing at the path.
    pub(super) fn allow(&self, head: &Head) -> String {
        let routes = self.fitting(head);
        match &self.fallback {
            Some((methods, _)) if routes.is_empty() => names(methods(head)),
            _ => names(&methods_of(&routes)),
        }
    }

    /// The routes that the path of a request fits.
    fn fitting(&self, head: &Head) -> Vec<&Route> {
        let most = self.routes.iter().map(|route| route.parts.len()).max().unwrap_or(0);
        let segments: Vec<_> = head.parts().take(most + 1).collect();
        self.routes.iter().filter(|route| route.fits(&segments)).collect()
    }
}

fn methods_of(routes: &[&Route]) -> Vec<Method> {
    routes.iter().map(|route| route.method).collect()
}

impl Route {
    fn fits(&self, segments: &[Cow<str>]) -> bool {
        let mut pairs = self.parts.iter().zip(segments);
        self.parts.len() == segments.len() && pairs.all(|(part, segment)| part == segment || name_of(part).is_some())
    }

    /// The parameters of a path that fits.
    fn parameters<'s>(&self, segments: impl Iterator<Item = Cow<'s, str>>) -> Parameters {
        let pairs = self.parts.iter().zip(segments);
        let named = pairs.filter_map(|(part, segment)| Some((name_of(part)?, segment)));
        named.map(|(name, segment)| (name.to_owned(), segment.into_owned())).collect()
    }
}

/// The name of a parameter, in braces.
fn name_of(part: &str) -> Option<&str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

/// `Allow = #method` (RFC 9110, 10.2.1), with the methods that the server itself adds.
fn names(methods: &[Method]) -> String {
    let has = |method: &Method| match method {
        Method::Head => methods.contains(&Method::Get) || methods.contains(&Method::Head),
        Method::Options => !methods.is_empty(),
        _ => methods.contains(method),
    };
    let names = Method::ALL.into_iter().filter(has).map(Method::name);
    names.collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.routes.iter().map(|route| (route.method.name(), format!("/{}", route.parts.join("/"))));
        f.debug_struct("Router")
            .field("routes", &routes.collect::<Vec<_>>())
            .field("has_fallback", &self.fallback.is_some())
            .finish()
    }
}
