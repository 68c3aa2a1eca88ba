// What browsers are let do: pages of which origins may ask, and by which names the server may be called. A browser adds
// Origin, Host and Sec-Fetch-Site by itself; a page's script can't forge them.
#pragma once

#include <string>
#include <vector>

#include "multiverse/http/server.h"

#include "http/exchange.h"

namespace multiverse {

// Whether the list has the request's Origin; "*" has all.
bool is_listed_origin(const RequestHead& head, const std::vector<std::string>& origins);

// Whether a page of another origin sends the request, which may change something. Programs that are no browsers send
// none of these fields, and never cross origins.
bool crosses_origins(const RequestHead& head);

// Whether the request's Host, without its port, is one of the names; no names: any is. Keeps out pages whose name was
// made to resolve to this server's address (DNS rebinding).
bool is_allowed_host(const RequestHead& head, const std::vector<std::string>& hosts);

// Answers, and says true then, a page of an origin that is not listed, a request for another host, and what a browser
// asks before a request (a preflight). Has all other answers to a listed origin say that its page may read them.
// `is_probe`: a health route, which is asked by address.
bool answer_browser(Exchange& exchange, const HttpOptions& options, bool known_path, bool is_probe);

}  // namespace multiverse
