// The only file that includes napi.h, so that every translation unit agrees on how it is configured.
#pragma once

// Node 20, the oldest supported, has Node-API 9.
#ifdef NAPI_VERSION
#undef NAPI_VERSION
#endif
#define NAPI_VERSION 9

#ifndef NODE_ADDON_API_DISABLE_DEPRECATED
#define NODE_ADDON_API_DISABLE_DEPRECATED
#endif

// A worker that is being terminated refuses every new JavaScript exception; without this, trying to throw one there
// ends the process.
#ifndef NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS
#endif

// Every std::exception that escapes a callback becomes a JavaScript Error instead of ending the process.
#ifndef NODE_ADDON_API_CPP_EXCEPTIONS_ALL
#define NODE_ADDON_API_CPP_EXCEPTIONS_ALL
#endif

#include <napi.h>

#ifndef NODE_ADDON_API_CPP_EXCEPTIONS
#error "build the addon with C++ exceptions (-fexceptions)"
#endif
