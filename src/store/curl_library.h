// libcurl, loaded at its first use: it brings thirty libraries, some 4 MiB resident, which who serves from its own disk
// or routes only does without. Any thread.
#pragma once

#include <curl/curl.h>

#include "base/result.h"

namespace spillway::store {

struct CurlLibrary {
  decltype(&::curl_easy_init) easy_init = nullptr;
  decltype(&::curl_easy_cleanup) easy_cleanup = nullptr;
  decltype(&::curl_easy_reset) easy_reset = nullptr;
  decltype(&::curl_easy_setopt) easy_setopt = nullptr;
  decltype(&::curl_easy_perform) easy_perform = nullptr;
  decltype(&::curl_easy_getinfo) easy_getinfo = nullptr;
  decltype(&::curl_easy_strerror) easy_strerror = nullptr;
  decltype(&::curl_slist_append) slist_append = nullptr;
  decltype(&::curl_slist_free_all) slist_free_all = nullptr;
};

// Loaded and initialised once; an error says what was missing.
const Result<CurlLibrary>& curl_library();

}  // namespace spillway::store
