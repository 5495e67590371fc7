// Handle<T>: the base of the objects that JavaScript holds. Each class has a type tag, checked before a native pointer
// is read out of any object, receivers included: napi_define_class checks the receiver of methods but not of getters,
// so members are defined as plain functions on the prototype and find their object through from().
#pragma once

#include <string>

#include "addon/arguments.h"
#include "addon/napi_setup.h"

namespace implex::addon {

// T has `static const char kName[]` and `static const napi_type_tag kTag`.
template <typename T>
class Handle : public Napi::ObjectWrap<T> {
 public:
  // Null when the value is anything but a T.
  static T* from(const Napi::Value& value) {
    if (!value.IsObject()) return nullptr;
    const auto object = value.As<Napi::Object>();
    return object.CheckTypeTag(&T::kTag) ? T::Unwrap(object) : nullptr;
  }

  // Throws a TypeError when it is not a T.
  static T& argument(const std::string& name, const Napi::Value& value) {
    T* handle = from(value);
    if (handle == nullptr) throw_invalid_argument(name, std::string("a ") + T::kName, value);
    return *handle;
  }
  static T& receiver(const Napi::CallbackInfo& info) { return argument("this", info.This()); }

 protected:
  // Only this addon makes handles: its argument is an External that carries what JavaScript cannot make.
  explicit Handle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<T>(info) {
    if (info.Length() != 1 || !info[0].IsExternal() || !info[0].As<Napi::External<void>>().CheckTypeTag(&T::kTag)) {
      throw Napi::TypeError::New(info.Env(), std::string(T::kName) + " has no public constructor");
    }
    info.This().As<Napi::Object>().TypeTag(&T::kTag);
  }

  // `state` is read during the call only.
  template <typename State>
  static Napi::Object construct(Napi::Env env, const Napi::FunctionReference& constructor, State* state) {
    const auto external = Napi::External<void>::New(env, state);
    external.TypeTag(&T::kTag);
    return constructor.New({external});
  }

  template <Napi::Value (*body)(const Napi::CallbackInfo&)>
  static Napi::PropertyDescriptor method(Napi::Env env, const char* name) {
    return Napi::PropertyDescriptor::Value(name, Napi::Function::New<body>(env, name), napi_default_method);
  }
  template <Napi::Value (*body)(const Napi::CallbackInfo&)>
  static Napi::PropertyDescriptor getter(const char* name) {
    return Napi::PropertyDescriptor::Accessor<body>(name, napi_default_method);
  }

  static Napi::Function define(Napi::Env env, std::initializer_list<Napi::PropertyDescriptor> members) {
    const Napi::Function constructor =
        Handle::DefineClass(env, T::kName, std::vector<typename Handle::PropertyDescriptor>{});
    constructor.Get("prototype").template As<Napi::Object>().DefineProperties(members);
    return constructor;
  }
};

}  // namespace implex::addon
