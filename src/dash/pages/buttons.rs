//! Buttons: what somebody can do about what he sees, as far as his role goes. One that can't be taken back asks first.

use std::time::Duration;

use maud::{Markup, html};

use super::parts::{badge, next, query};
use crate::clock::Timestamp;
use crate::dash::access::Role;
use crate::dash::{mask, place};
use crate::job::control::{Pause, Target};
use crate::observe::Picture;
use crate::observe::words::duration;
use crate::policy::health::{Incident, Severity, Step};

/// A form of one button, whose fields are hidden.
pub fn button(action: &str, label: &str, about: &str, fields: &[(&str, &str)]) -> Markup {
    html! {
        form.act method="post" action=(place::link(action)) {
            @for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
                input type="hidden" name=(name) value=(value);
            }
            button aria-label=[(!about.is_empty()).then(|| format!("{label} {about}"))] { (label) }
        }
    }
}

/// A link that looks like a button: to a page that asks.
pub fn link(href: &str, label: &str, about: &str) -> Markup {
    html! { a.button href=(place::link(href)) aria-label=[(!about.is_empty()).then(|| format!("{label} {about}"))] { (label) } }
}

/// A target as the fields of a form.
pub fn fields(target: &Target) -> [(&'static str, &str); 3] {
    let (lane, endpoint, tenant) = target.parts();
    [
        ("lane", lane.map(crate::job::LaneName::as_str).unwrap_or_default()),
        ("endpoint", endpoint.map(crate::job::EndpointName::as_str).unwrap_or_default()),
        ("tenant", tenant.map(crate::job::Tenant::as_str).unwrap_or_default()),
    ]
}

/// The pause of exactly this target.
pub fn pause_of<'a>(picture: &'a Picture, target: &Target) -> Option<&'a Pause> {
    picture.paused.iter().find(|paused| paused.target == *target).map(|paused| &paused.pause)
}

/// Whether a target is paused, until when and by whom; and the button that changes it.
pub fn pausing(picture: &Picture, target: &Target, role: Role) -> Markup {
    let (may, about) = (role >= Role::Operator, target.to_string());
    html! {
        @match pause_of(picture, target) {
            Some(pause) => {
                (paused(pause, picture.now))
                @if may { " " (button("/resume", "Resume", &about, &fields(target))) }
            }
            None => @if may { (link(&format!("/pause?{}", query(&fields(target))), "Pause", &about)) }
        }
    }
}

/// A pause in words.
pub fn paused(pause: &Pause, now: Timestamp) -> Markup {
    html! {
        (badge("wait", "‖", "paused"))
        @match pause.until { Some(until) => { " ends " (next(Some(until), now)) }, None => " until resumed" }
        ", by " (pause.author)
        @if !pause.note.is_empty() { ": " (pause.note) }
    }
}

/// Incidents: of each its kind, its sentence and what can be done about it at once.
pub fn incidents(found: &[Incident], role: Role) -> Markup {
    html! {
        @if found.is_empty() {
            (super::parts::empty("Nothing needs a person."))
        } @else {
            ul.incidents {
                @for one in found {
                    @let (class, mark) = look(one.severity);
                    li class=(class) {
                        span.mark aria-hidden="true" { (mark) } " "
                        span.kind { (one.kind.as_str().replace('_', " ")) } " " span { (mask::text(&one.message)) }
                        div.steps { @for step in [&one.step].into_iter().chain(&one.also) { (self::step(step, role)) } }
                    }
                }
            }
        }
    }
}

/// How bad it is, by colour and mark.
pub fn look(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Critical => ("bad", "!"),
        Severity::Warning => ("wait", "▲"),
        Severity::Info => ("busy", "i"),
    }
}

/// A step as a button, a link, or the command.
fn step(step: &Step, role: Role) -> Markup {
    let lane = |name: &str| query(&[("lane", name)]);
    match step {
        Step::Pause(target, time) if role >= Role::Operator => {
            let (label, lasts) = (format!("Pause {} for {}", short(target), duration(*time)), minutes(*time));
            let [lane, endpoint, tenant] = fields(target);
            button("/pause", &label, "", &[lane, endpoint, tenant, ("for", &lasts), ("from", "overview")])
        }
        Step::Resume(target) if role >= Role::Operator => {
            let [lane, endpoint, tenant] = fields(target);
            button("/resume", &format!("Resume {}", short(target)), "", &[lane, endpoint, tenant, ("from", "overview")])
        }
        Step::Slow(endpoint, tenant, percent, time) if role >= Role::Admin => {
            let label = format!("Slow {tenant} to {percent} % for {}", duration(*time));
            let (endpoint, tenant, percent) = (endpoint.as_str(), tenant.as_str(), percent.to_string());
            let named = [("endpoint", endpoint), ("tenant", tenant), ("percent", &percent), ("from", "overview")];
            let lasts = minutes(*time);
            button("/limits/slow", &label, "", &[&named[..], &[("for", lasts.as_str())]].concat())
        }
        // whoever may not press it is not told of it
        Step::Pause(..) | Step::Resume(_) | Step::Slow(..) => html! {},
        Step::Jobs(name) => link(&format!("/jobs?{}", lane(name.as_str())), "Its jobs", ""),
        Step::Letters(name) => link(&format!("/dead?{}", lane(name.as_str())), "Its dead letters", ""),
        Step::Limits(endpoint, tenant) => {
            let endpoint = endpoint.as_ref().map(crate::job::EndpointName::as_str).unwrap_or_default();
            let tenant = tenant.as_ref().map(crate::job::Tenant::as_str).unwrap_or_default();
            link(&format!("/limits?{}", query(&[("endpoint", endpoint), ("tenant", tenant)])), "Limits", "")
        }
        Step::Status => link("/workers", "Workers", ""),
        Step::CheckConfig | Step::StartWorker(_) | Step::Foresee => html! { code { (step) } },
    }
}

fn minutes(time: Duration) -> String {
    format!("{}m", time.as_secs() / 60)
}

/// A target without the word that says what it is.
fn short(target: &Target) -> String {
    match target {
        Target::Lane(lane) => lane.to_string(),
        Target::Endpoint(endpoint) => endpoint.to_string(),
        Target::Tenant(tenant) => tenant.to_string(),
        Target::TenantAt(endpoint, tenant) => format!("{tenant} at {endpoint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{EndpointName, LaneName, Tenant};
    use crate::policy::health::{Kind, Severity};

    fn shown(role: Role) -> String {
        let (bulk, crm) = (LaneName::new("bulk").expect("legal"), EndpointName::new("crm").expect("legal"));
        let acme = Tenant::new("<acme> & sons").expect("legal");
        let quarter = Duration::from_mins(15);
        let incident = Incident {
            kind: Kind::RateLimitSpike,
            severity: Severity::Warning,
            lane: None,
            endpoint: Some(crm.clone()),
            tenant: Some(acme.clone()),
            message: "crm: 214 429s/min".to_owned(),
            step: Step::Limits(Some(crm.clone()), Some(acme.clone())),
            also: vec![
                Step::Slow(crm.clone(), acme.clone(), 50, Duration::from_hours(1)),
                Step::Pause(Target::TenantAt(crm, acme), quarter),
                Step::Pause(Target::Lane(bulk.clone()), quarter),
                Step::StartWorker(bulk),
            ],
        };
        incidents(&[incident], role).into_string()
    }

    #[test]
    fn an_incident_has_the_buttons_that_its_reader_may_press() {
        let (viewer, operator, admin) = (shown(Role::Viewer), shown(Role::Operator), shown(Role::Admin));
        for all in [&viewer, &operator, &admin] {
            assert!(all.contains("href=\"/limits?endpoint=crm&amp;tenant=%3Cacme%3E+%26+sons\""), "{all}");
            assert!(all.contains("<code>lanes worker --lane bulk</code>") && !all.contains("<acme>"), "{all}");
        }
        assert!(!viewer.contains("<form"), "{viewer}");
        assert!(
            operator.contains("Pause bulk for 15m") && operator.contains("name=\"for\" value=\"15m\""),
            "{operator}"
        );
        assert!(!operator.contains("Slow"), "{operator}");
        assert!(admin.contains("Slow &lt;acme&gt; &amp; sons to 50 % for 1h"), "{admin}");
        assert!(
            admin.contains("name=\"percent\" value=\"50\"") && admin.contains("name=\"for\" value=\"60m\""),
            "{admin}"
        );
    }
}
