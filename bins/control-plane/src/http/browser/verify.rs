//! `GET` and `POST /oauth/device/verify`: somebody lets a device in, or does not (RFC 8628, 3.3 and 5.4).

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};
use askama::Template;
use tidegate_model::{DeviceCode, DeviceDecision, FieldErrors, OrgRole, OrgStatus, Organization, UserCode};
use tidegate_service::{Caller, Error, OrgScope, Paging};

use super::{
    VERIFY, check_form,
    render::{message, page, to_login, told},
    signed_in,
};
use crate::http::{Context, Problem, form::Parameters, source::source, valid::lenient_query};

#[derive(Template)]
#[template(path = "code.html")]
struct Ask<'a> {
    message: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "device.html")]
struct Device<'a> {
    username: &'a str,
    token: String,
    code: String,
    name: &'a str,
    address: &'a str,
    asked: String,
    minutes: i64,
    organizations: Vec<(Organization, OrgRole)>,
}

/// Asks for the code of a device, or, with a code, whether to let the device in.
pub(crate) async fn verify(request: HttpRequest, context: Data<Context>) -> Result<HttpResponse, Problem> {
    told(show(&request, &context).await)
}

async fn show(request: &HttpRequest, context: &Context) -> Result<HttpResponse, Problem> {
    let query = lenient_query(request.query_string());
    let typed = query.get("user_code").map(String::as_str).unwrap_or_default();
    let Some(caller) = signed_in(request, context).await? else {
        return to_login(request, context, &with_code(typed));
    };
    if typed.is_empty() {
        return page(StatusCode::OK, &Ask { message: None });
    }
    let devices = &context.services.devices;
    match devices.lookup_device_code(&caller, typed, source(request, context)).await {
        Ok(found) => match found.decision {
            None => ask(context, &caller, typed, &found).await,
            Some(decision) if found.mine => decided(decision),
            Some(_) => Err(taken()),
        },
        Err(error @ Error::NotFound(_)) => page(
            StatusCode::NOT_FOUND,
            &Ask { message: Some(&format!("{error}: compare it and type it again")) },
        ),
        Err(error) => Err(error.into()),
    }
}

/// The page itself, with the code if it is one.
fn with_code(typed: &str) -> String {
    match typed.parse::<UserCode>() {
        Ok(code) => format!("{VERIFY}?user_code={code}"),
        Err(_) => VERIFY.to_owned(),
    }
}

async fn ask(
    context: &Context,
    caller: &Caller,
    typed: &str,
    device: &DeviceCode,
) -> Result<HttpResponse, Problem> {
    let services = &context.services;
    let mut organizations =
        services.organizations.list(caller, &Paging { limit: 100, cursor: None }).await?.items;
    organizations.retain(|(organization, _)| organization.status == OrgStatus::Active);
    // The one that requests without a choice go to stands first, and is chosen unless somebody chooses otherwise.
    let own = caller.org().ok().map(OrgScope::org_id);
    organizations.sort_by_key(|(organization, _)| Some(organization.id) != own);
    let name = Some(device.client_name.as_str()).filter(|name| !name.is_empty());
    let waited = services.clock().now() - device.created_at;
    page(
        StatusCode::OK,
        &Device {
            username: caller.user().username(),
            token: services.browsers.form_token(caller),
            code: typed.parse::<UserCode>().map(|code| code.to_string()).unwrap_or_default(),
            name: name.unwrap_or("A device that gave no name"),
            address: device.address.as_deref().unwrap_or("an unknown address"),
            asked: device.created_at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            minutes: waited.num_minutes().max(0),
            organizations,
        },
    )
}

/// Lets the device in, or refuses it.
pub(crate) async fn decide(
    request: HttpRequest,
    context: Data<Context>,
    sent: Parameters,
) -> Result<HttpResponse, Problem> {
    told(answer(&request, &context, &sent).await)
}

async fn answer(
    request: &HttpRequest,
    context: &Context,
    sent: &Parameters,
) -> Result<HttpResponse, Problem> {
    let typed = sent.get("user_code").unwrap_or_default();
    let Some(caller) = signed_in(request, context).await? else {
        return to_login(request, context, &with_code(typed));
    };
    check_form(request, context, &caller, sent)?;
    let bad = |name, what| Problem::invalid(FieldErrors::one(name, what));
    let (devices, from) = (&context.services.devices, source(request, context));
    match sent.get("action") {
        Some("approve") => {
            let org = sent.get("organization").and_then(|id| id.parse().ok());
            let org = org.ok_or_else(|| bad("organization", "must be one of yours"))?;
            devices.approve_device_code(&caller, typed, org, from).await?;
            decided(DeviceDecision::Approved)
        }
        Some("deny") => {
            devices.deny_device_code(&caller, typed, from).await?;
            decided(DeviceDecision::Denied)
        }
        _ => Err(bad("action", "must be approve or deny")),
    }
}

fn decided(decision: DeviceDecision) -> Result<HttpResponse, Problem> {
    match decision {
        DeviceDecision::Approved => message(
            StatusCode::OK,
            "The device is let in",
            "It can act for you now. You may close this page; the device goes on by itself.",
        ),
        DeviceDecision::Denied => message(
            StatusCode::OK,
            "The device is refused",
            "It gets nothing. If you did not ask for it, somebody else may have tried.",
        ),
    }
}

fn taken() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "E_DEVICE_DECIDED",
        "this device was let in or refused already: ask for a new code on it",
    )
}
